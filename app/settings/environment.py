"""Which variables are set: those of the environment, and those of `.env` or of the file that takes its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from app.settings.env_file import text_of_env_file, values_in
from app.settings.files import name_shown, path_shown, text_in

ENV_FILE = "CONNECTOR_ENV_FILE"
ENV_FILE_OPTION = "--env-file"
NO_ENV_FILE = "is the path right, and may this user read it? Beside a service, be the service's user"
typed_paths: set[str] = set()  # no secrets, as everybody on the machine sees a command line


def set_variables(environment: Mapping[str, str], ours: Collection[str], problems: list[str]) -> dict[str, str]:
    """Return the variables that are set: those of the environment, and where one is empty or missing, of a file.

    That is CONNECTOR_ENV_FILE, which must be there; else `.env` of the working directory, in DEVELOP alone.

    Args:
        environment: The variables.
        ours: The names of settings.
        problems: Where is put what is wrong with the file.
    """
    environment = _set(environment)
    named = environment.get(ENV_FILE)
    if named is None and not _reads_dotenv(environment):
        return environment
    name = _name_of_env_file(named)
    try:
        in_file = values_in(text_of_env_file(Path(".env")) if named is None else text_in(named), ours)
    except OSError as error:
        advice = "make it readable, or remove it" if named is None else NO_ENV_FILE
        problems.append(f"{name}: cannot be read ({error.strerror}); {advice}")
        return environment
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return environment
    if in_file.get(ENV_FILE):
        problems.append(f"{name}: sets {ENV_FILE}, which no file can; set it in the environment, or use --env-file")
    return {**_set(in_file), **environment}


def origin_of(environment: Mapping[str, str]) -> str:
    """Return where variables come from, for the log."""
    named = environment.get(ENV_FILE)
    is_empty = f" ({ENV_FILE} is empty, which counts as unset)" if named == "" else ""
    if named:
        return f"the environment and {name_shown(named)}"
    if _reads_dotenv(_set(environment)) and Path(".env").is_file():
        return f"the environment and .env of the working directory{is_empty}"
    return f"the environment alone{is_empty}"


def _reads_dotenv(environment: Mapping[str, str]) -> bool:
    return environment.get("RUN_MODE", "").strip().upper() in {"", "DEVELOP"}


def _name_of_env_file(named: str | None) -> str:
    """Return what errors call the file: the option or the variable that names it, and its path."""
    if named is None:
        return ".env"
    return f"{ENV_FILE_OPTION}: {name_shown(named)}" if named in typed_paths else f"{ENV_FILE}: {path_shown(named)}"


def _set(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set; an empty one is not, as manifests write it. For the key, empty means none."""
    return {name: value for name, value in variables.items() if value or name == "RECORD_KEY"}
