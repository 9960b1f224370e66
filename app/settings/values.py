"""Types of single values: each turns the text of a variable into a value, or says what is allowed.

The sentences are read by the person who started the worker, so pydantic's own are never used. They show the wrong
value, which is why secrets must not be given one of these types.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from app.settings.files import check_file, path_shown, value_shown

MEBIBYTE = 1024 * 1024
MAX_MQTT_TEXT_BYTES = 65535

# More digits than any limit has; Python refuses to convert thousands of them.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_BYTE_SIZE = re.compile(r"([0-9]{1,18}) *(?:([kmgt]?)(i?)b)?", re.IGNORECASE)
_TRUE = {"true", "1", "yes"}
_FALSE = {"false", "0", "no"}


def whole_number(lowest: int, highest: int | None = None) -> BeforeValidator:
    """A whole number within limits that are both allowed."""
    allowed = (
        f"a whole number from {lowest} to {highest}" if highest is not None else f"a whole number, at least {lowest}"
    )

    def convert(value: object) -> int:
        text = str(value).strip()
        if not _WHOLE_NUMBER.fullmatch(text):
            raise ValueError(f"must be {allowed}, not {value_shown(value)}")
        number = int(text)
        if number < lowest or (highest is not None and number > highest):
            raise ValueError(f"must be {allowed}, not {value_shown(value)}")
        return number

    return BeforeValidator(convert)


def _positive_number(value: object) -> float:
    try:
        number = float(str(value).strip())
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"must be a number greater than 0, such as 10 or 0.5, not {value_shown(value)}")
    return number


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false (or 1, 0, yes, no), not {value_shown(value)}")
    return text in _TRUE


def choice(*allowed: str, normal_case: Callable[[str], str] = str.lower) -> BeforeValidator:
    """One of a few words, in any case."""

    def convert(value: object) -> str:
        text = normal_case(str(value).strip())
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {value_shown(value)}")
        return text

    return BeforeValidator(convert)


def byte_size(lowest: int, highest: int | None = None, *, called: str = "") -> BeforeValidator:
    """A number of bytes within limits that are both allowed, perhaps with a unit."""
    allowed = f"at least {lowest}{called}" if highest is None else f"from {lowest} to {highest}"

    def convert(value: object) -> int:
        match = _BYTE_SIZE.fullmatch(str(value).strip())
        size_bytes = -1
        if match:
            power = " kmgt".index((match[2] or " ").lower())
            size_bytes = int(match[1]) * (1024 if match[3] else 1000) ** power
        if size_bytes < lowest or (highest is not None and size_bytes > highest):
            raise ValueError(f"must be a number of bytes, {allowed}, also as 500MB or 2GiB, not {value_shown(value)}")
        return size_bytes

    return BeforeValidator(convert)


def _readable_file(path: Path) -> Path:
    try:
        check_file(path)
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    else:
        return path
    raise ValueError(f"must be the path of a readable file; {path_shown(path)}: {reason}")


def mqtt_text_problem(text: str) -> str | None:
    """What keeps a text from being an MQTT string, without showing it (it may be a secret)."""
    if "\0" in text:
        return "must not contain the character NUL"
    if len(text.encode("utf-8", "surrogatepass")) > MAX_MQTT_TEXT_BYTES:
        return f"must be at most {MAX_MQTT_TEXT_BYTES} bytes long in UTF-8"
    return None


def _mqtt_text(text: str) -> str:
    if problem := mqtt_text_problem(text):
        raise ValueError(problem)
    return text


def tls_file(value: Path | None, info: ValidationInfo, *, tls: bool) -> Path | None:
    """Check a TLS file against its neighbours: it needs TLS, a certificate and its key need each other."""
    name = str(info.field_name)
    prefix = name.split("_", 1)[0]
    if value is not None and not tls:
        # Else the connection would silently be in clear text.
        raise ValueError(f"works only with {prefix.upper()}_TLS=true")
    certificate_name = f"{prefix}_cert_file"
    # A certificate that is itself wrong is reported as such and is missing here.
    if name.endswith("_key_file") and certificate_name in info.data:
        certificate = info.data[certificate_name]
        if value is not None and certificate is None:
            raise ValueError(f"works only with {certificate_name.upper()}, the certificate of this key")
        if value is None and certificate is not None:
            raise ValueError(f"is required, as {certificate_name.upper()} is set: the path of the certificate's key")
    return value


Port = Annotated[int, whole_number(1, 65535)]
PositiveNumber = Annotated[float, BeforeValidator(_positive_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
ByteSize = Annotated[int, byte_size(MEBIBYTE, called=" (1 MiB)")]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
MqttText = Annotated[str, AfterValidator(_mqtt_text), Field(min_length=1)]
