"""What is wrong with variables, in sentences: values that are not allowed, and names that no setting has."""

import re
import string
from collections.abc import Mapping as MappingOf

from pydantic_core import ErrorDetails

from app.settings.all_settings import NAMES, OURS, SECRET_NAMES, Settings
from app.settings.routes_file import RoutesFileError

_PREFIXES = ("MQTT_", "KAFKA_", "SASL_", "INVOKE_", "UNDELIVERED_", "DEAD_LETTER_", "WEB_", "REPLAY_", "ROUTES_")
# Kubernetes describes every service in variables that begin with the service's name.
_KUBERNETES = re.compile(r"_SERVICE_|_PORT(_|$)")
_LETTERS_OF_A_VARIABLE = f"{string.ascii_uppercase}{string.digits}_"
_SEPARATORS = re.compile(r"[_.-]")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://.*:[0-9]+")
_LETTERS_OF_NAMES = {name.replace("_", "") for name in NAMES}


def name_of(error: ErrorDetails) -> str:
    """Return the name of the variable that an error is about."""
    return str(error["loc"][0]).upper()


def _hint(name: str, values: MappingOf[str, str]) -> str:
    """Say where a value comes from that nobody wrote: Kubernetes sets NAME_PORT for a service of that name."""
    if not name.endswith("_PORT") or not _SERVICE_LINK.fullmatch(values.get(name, "")):
        return ""
    service = name.removesuffix("_PORT").lower().replace("_", "-")
    return (
        f"; Kubernetes sets this for a Service named {service}: put enableServiceLinks: false into the pod's spec, or "
        f"set {name}"
    )


def sentences(error: ErrorDetails, origins: MappingOf[str, str], values: MappingOf[str, str]) -> list[str]:
    """Return what is to be said of an error.

    Args:
        error: Of pydantic.
        origins: The name by which each variable was set.
        values: What was given.
    """
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, RoutesFileError):
        return [f"{name_of(error)}: {problem}" for problem in reason.problems]
    return [_sentence(error, origins, values)]


def _sentence(error: ErrorDetails, origins: MappingOf[str, str], values: MappingOf[str, str]) -> str:
    name = name_of(error)
    if error["type"] == "missing":
        return f"{name}: is required. {Settings.model_fields[name.lower()].description}"
    if error["type"] == "value_error":
        return f"{origins[name]}: {error['ctx']['error']}{_hint(name, values)}"
    return f"{origins[name]}: must be text in UTF-8"


def unknown_names(given: MappingOf[str, str]) -> tuple[str, ...]:
    """Return the names of variables that look like settings and are none, as far as they may be shown."""
    return tuple(
        sorted(
            {
                _name_shown(name)
                for name in given
                if name not in OURS and (_is_other_spelling(name) or _looks_like_a_setting(name))
            }
        )
    )


def _is_other_spelling(name: str) -> bool:
    return _SEPARATORS.sub("", name).upper() in _LETTERS_OF_NAMES


def _looks_like_a_setting(name: str) -> bool:
    return name.startswith(_PREFIXES) and not _KUBERNETES.search(name)


def _name_shown(name: str) -> str:
    """Return a name as far as it is one: a line of `.env` without its `=` may have a secret in it."""
    if _is_other_spelling(name):
        return name
    whole = name[: len(name) - len(name.lstrip(_LETTERS_OF_A_VARIABLE))]
    beginning = next((secret for secret in SECRET_NAMES if name.startswith(secret)), whole)
    is_one = beginning == name or (whole == name and name.endswith("_FILE"))
    return name if is_one else f"{beginning}..."
