"""Reading the environment, here alone: variables, secrets from files, and one report of everything that is wrong."""

import os
import re
import traceback
from collections.abc import Mapping as MappingOf
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.errors import SettingsError
from app.secret_forms import KnownSecrets, known
from app.settings.all_settings import FILE_NAMES, NAMES, OURS, SECRET_NAMES, TWINS, Settings
from app.settings.environment import ENV_FILE, origin_of, set_variables, typed_paths
from app.settings.files import secret_in, value_shown
from app.settings.problems import name_of, sentences, unknown_names
from app.settings.process import LOG_FORMATS, LogFormat
from app.settings.secret_values import secret_values
from app.settings.worker_names import checked_site

KEY_LOG = "SSLKEYLOGFILE"  # Python's own variable, which is no setting of Connector

# What the app is loaded with for a command that needs no settings.
ENOUGH_TO_LOAD = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "connector",
    "KAFKA_BROKER": "localhost",
    "TOPIC_LIST": "mqtt:kafka",
}


def load_settings(environment: MappingOf[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        environment: The variables, the process's own if None.

    Raises:
        SettingsError: every variable that is wrong, with what is allowed.
    """
    problems: list[str] = []
    given = set_variables(os.environ if environment is None else environment, OURS, problems)
    if problems and ENV_FILE in given:  # what is missing then is in that file
        raise SettingsError(problems)
    values = {name: given[name] for name in NAMES if name in given}
    origins = {name: name for name in NAMES}
    _read_twins(given, values, origins, problems)
    skipped = _read_secret_files(given, values, origins, problems)
    # A library cuts what it shows, and a value may stand in the wrong variable.
    secrets = KnownSecrets(secret_values(values, SECRET_NAMES))
    # Outside the handler: the original exception must not travel along, it holds the values.
    settings, errors = _validated(values, unknown_names(given))
    for error in errors:
        if name_of(error) not in skipped:
            problems += sentences(error, origins, values)
    if problems or settings is None:
        raise SettingsError([secrets.hidden(problem) for problem in problems])
    known.know(secret_values(values, SECRET_NAMES))
    return settings


def with_routes_read_anew(settings: Settings) -> Settings:
    """Return the same settings with what ROUTES_FILE has now; everything is checked as at the start.

    Raises:
        SettingsError: everything that is wrong, with what is allowed.
    """
    assert settings.routes_file is not None
    values = {name: getattr(settings, name) for name in settings.model_fields_set if name != "unknown_names"}
    values["routes_file"] = str(settings.routes_file.path)
    fresh, errors = _validated(values, settings.unknown_names)
    if fresh is None:
        origins = {name: name for name in NAMES}
        raise SettingsError([known.hidden(problem) for error in errors for problem in sentences(error, origins, {})])
    return fresh


def tls_keys_are_written() -> bool:
    """Tell whether Python writes the keys of TLS into a file, as a variable of its own asks."""
    return bool(os.environ.get(KEY_LOG))


def notify_variables() -> tuple[str, float]:
    """Return where systemd wants to be told how the worker is, and after how many seconds of silence it kills it.

    These variables are systemd's. Empty: nobody wants to be told; 0: it is not killed.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    seconds = int(microseconds) / 1_000_000 if re.fullmatch("[0-9]{1,18}", microseconds) and is_ours else 0.0
    return os.environ.get("NOTIFY_SOCKET", ""), seconds


def wanted_log_format() -> LogFormat:
    """Return LOG_FORMAT when other settings are wrong, so that their report can be written in it."""
    wanted = set_variables(os.environ, OURS, []).get("LOG_FORMAT", "").strip().lower()
    return next((name for name in LOG_FORMATS if name == wanted), "auto")


def wanted_site() -> str | None:
    """Return SITE when other settings are wrong, so that their report says where it comes from."""
    try:
        return checked_site(set_variables(os.environ, OURS, []).get("SITE"))
    except ValueError:
        return None


def use_env_file(path: str) -> None:
    """Have the settings read from a file, in the place of `.env`, as the option `--env-file` asks.

    Raises:
        ValueError: The path is empty, as that of a variable is which a script has not set.
    """
    if not path:
        raise ValueError("must be the path of a file, and it is empty")
    os.environ[ENV_FILE] = path
    typed_paths.add(path)


def origin_of_settings() -> str:
    """Return where the settings were read from, for the log."""
    return origin_of(os.environ)


def _read_twins(
    given: MappingOf[str, str], values: dict[str, str], origins: dict[str, str], problems: list[str]
) -> None:
    """Take the values of variables that are set by their other name."""
    for twin, name in TWINS.items():
        if twin not in given:
            continue
        if values.get(name, given[twin]) != given[twin]:
            problems.append(
                f"{twin}: is another name of {name}, and they differ ({value_shown(given[twin])} and "
                f"{value_shown(values[name])}); allowed is one of them"
            )
            continue
        values[name], origins[name] = given[twin], twin


def _read_secret_files(
    given: MappingOf[str, str], values: dict[str, str], origins: dict[str, str], problems: list[str]
) -> set[str]:
    """Fill in the secrets that are in files; return the names for which that failed."""
    skipped: set[str] = set()
    for file_name, name in FILE_NAMES.items():
        if file_name not in given:
            continue
        origins[name] = file_name
        try:
            values[name] = _secret(name, given[file_name], values)
        except ValueError as error:
            skipped.add(name)
            problems.append(f"{file_name}: {error}")
    return skipped


def _secret(name: str, path: str, values: MappingOf[str, str]) -> str:
    if name in values:
        raise ValueError(f"must not be set together with {name}; allowed is one of them")
    return secret_in(path)


def _validated(
    values: MappingOf[str, Any], unknown_names: tuple[str, ...]
) -> tuple[Settings | None, list[ErrorDetails]]:
    fields: dict[str, Any] = {name.lower(): value for name, value in values.items()}
    try:
        return Settings(**fields, unknown_names=unknown_names), []
    except ValidationError as error:
        return None, error.errors(include_input=False, include_url=False)
    except Exception as error:  # noqa: BLE001, whatever a check did not expect
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__} in {place.name}, line {place.lineno} of {Path(place.filename).name}"
    # Outside the handler: what the error says may be values.
    raise SettingsError([f"the settings cannot be read, as something unexpected happened ({found})"])
