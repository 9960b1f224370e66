"""Files that settings name or are read from: regular ones of a bounded size, so that none of them hangs the start.

A pipe that nobody writes to, and a device without an end, would keep the worker from saying what is wrong. What
everybody may write to is taken for nothing that decides whom we trust, at the start or when it is read anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import TypeVar

from app.own_files import is_trusted

Result = TypeVar("Result")
# Far more than the longest MQTT password (64 KiB), a producer configuration with certificates, or a `.env`.
LONGEST_FILE_BYTES = 1024 * 1024
_SHOWN_CHARACTERS, _SHOWN_NAME_CHARACTERS = 80, 300
# What stands around a password in a URL: as it is, escaped, and as two characters that look like an `@`.
_MAY_HIDE_A_SECRET = re.compile(r"[@%?&=#;\uff20\ufe6b]")
# `user:password`, whatever is before and behind it; not a scheme, a port or a colon at the end.
_MAY_BE_PASSWORD = re.compile(r":(?!//)(?!\s*[0-9]{1,5}/?(?:[,\]\s]|$))(?!\s*$)")
_MAY_BE_IPV6 = re.compile(r"(?<![0-9a-f:.])[0-9a-f:.]{2,45}(?![0-9a-f:.])", re.IGNORECASE)  # no longer one exists
# Of a filter of MQTT, in which # is usual.
_NO_USUAL_FILTER = re.compile(r"[@%?&=;:\uff20\ufe6b]")
_ADDRESS_SIGN = re.compile("://|[@\uff20\ufe6b]|%40")
_EVERYBODY = "everybody on this host may write to it; look at what is in it, then chmod o-w"
_AUTHORITY = re.compile(r"[0-9a-f]{8}\.r?[0-9]+")  # what OpenSSL looks for in a directory: the hash of a name
# Else OpenSSL would look for authorities where nobody looked at the rights.
NO_COLON = "must have no colon in its path, at which OpenSSL would divide it into other directories"
_FILTER_NOT_SHOWN = "(not shown, it may have a secret in it)"
_NOT_SHOWN = "what is set, which is not shown as it may have a secret in it"


def shown(value: object, most_characters: int = _SHOWN_CHARACTERS) -> str:
    """The value as an error shows it: on one line; not of a long one a part, as the cut could go through a secret."""
    text = repr(value)
    return text if len(text) <= most_characters else f"a text of {len(str(value))} characters"


def name_shown(name: str | os.PathLike[str]) -> str:
    """A path, or a filter of MQTT, as an error shows it: without it nobody would find what is at fault."""
    return shown(os.fspath(name), _SHOWN_NAME_CHARACTERS)


def value_shown(value: object) -> str:
    """The value as an error shows it where no path and no filter was meant: an address may have a password in it."""
    text = str(value)
    if len(text) > _SHOWN_CHARACTERS:  # nothing of it is shown
        return shown(value)
    without_ipv6 = _MAY_BE_IPV6.sub(lambda found: "" if _is_ipv6(found[0]) else found[0], text)
    return _NOT_SHOWN if _MAY_HIDE_A_SECRET.search(text) or _MAY_BE_PASSWORD.search(without_ipv6) else shown(value)


def filter_shown(mqtt_filter: str) -> str:
    """A filter of MQTT as an error shows it: not one that looks like an address, with a password perhaps."""
    return _FILTER_NOT_SHOWN if _NO_USUAL_FILTER.search(mqtt_filter) else name_shown(mqtt_filter)


def list_shown(text: str) -> str:
    """A list of mappings as an error shows it; nothing of it is shown if it has an address, which may have commas."""
    return _NOT_SHOWN if _ADDRESS_SIGN.search(text) else repr(text)


def checked(
    check: Callable[[str], Result], text: str, allowed: str, show: Callable[[str], str] = value_shown
) -> Result:
    """Return what comes of a check that is not of this package, and names the text in what it says.

    Args:
        check: Raises a ValueError with a sentence.
        text: What is checked.
        allowed: What is said in place of the sentence if the text may be an address, or is too long to be shown.
        show: How the text would be shown here.

    Raises:
        ValueError: The text is wrong.
    """
    try:
        return check(text)
    except ValueError as error:
        reason = str(error)
    raise ValueError(reason if show(text) == repr(text) else f"must be {allowed}, not {show(text)}")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def path_shown(path: str | os.PathLike[str]) -> str:
    """The path as an error shows it: only if it or its first directory exists, as what was set may be a secret."""
    first, separator, _ = os.fspath(path).lstrip("/").partition("/")
    beginning = "/" * os.fspath(path).startswith("/") + first
    if os.path.lexists(path) or (separator and os.path.isdir(beginning)):  # noqa: PTH112, Path raises for a long name
        return name_shown(path)
    if separator:
        return "the path is not shown, as its first directory does not exist and it may be a secret"
    return "the path is not shown, as it may be a secret; without a directory it is looked for in the working directory"


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading, and return its descriptor; links are followed, as Kubernetes makes them.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is a directory, a pipe, a device or a socket; everybody may write to it; or its path has a NUL.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and not mode & stat.S_IWOTH:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(mode):
        raise ValueError(_EVERYBODY)
    raise ValueError("must be a regular file")


def check_file(path: str | os.PathLike[str]) -> None:
    """Try whether a file may be read as `open_regular` has it.

    Raises:
        OSError: It cannot be opened.
        ValueError: What it is, or that everybody may write to it.
    """
    os.close(open_regular(path))


def check_authorities_in(directory: str | os.PathLike[str]) -> None:
    """Try a directory of authorities, in which OpenSSL looks for a file each time that it needs one.

    Raises:
        OSError: It cannot be read.
        ValueError: Its path is one that OpenSSL would divide; everybody may write to it or to one of its files, or one
            is none.
    """
    if ":" in os.fspath(directory):
        raise ValueError(NO_COLON)
    if Path(directory).stat().st_mode & stat.S_IWOTH:
        raise ValueError(_EVERYBODY)
    with os.scandir(directory) as entries:
        for entry in entries:
            if _AUTHORITY.fullmatch(entry.name):
                _check_authority(Path(entry.path))


def _check_authority(path: Path) -> None:
    """Try one file of the directory; OpenSSL passes over what it cannot open."""
    with contextlib.suppress(OSError):
        try:
            check_file(path)
        except ValueError as error:
            raise ValueError(f"{name_shown(path.name)} in it: {error}") from None


def text_in(path: str | os.PathLike[str], *, is_named: bool = True, most_bytes: int = LONGEST_FILE_BYTES) -> str:
    """Return the text of a small file in UTF-8, without the mark that some editors put before it.

    Args:
        path: The file.
        is_named: A setting names it; else it is read for its place, where another user may have put it.
        most_bytes: How large it may be.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no regular file, is too large, or is no UTF-8; the text does not show what is in it.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        # Of a link too: it leads where its owner wants.
        owners = os.fstat(file.fileno()).st_uid, Path(path).lstat().st_uid
        strangers = [owner for owner in owners if not is_trusted(owner)]
        if strangers and not is_named:
            raise ValueError(
                f"belongs to the user {strangers[0]}, and this process runs as {os.geteuid()}; look at what is in "
                f"it, then chown {os.geteuid()} or remove it, or set RUN_MODE=PRODUCTION"
            )
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"must have at most {most_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # `from None` would keep the content in the context of the exception.
        pass
    raise ValueError("must be UTF-8 text")


def secret_in(path: str) -> str:
    """Return the secret that a file holds, without one line end after it.

    Raises:
        ValueError: There is none; with a sentence that says what is allowed.
    """
    try:
        content = text_in(path).removesuffix("\n").removesuffix("\r")
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    else:
        if content:
            return content
        raise ValueError(f"must be the path of a file with the value, but {name_shown(path)} is empty")
    raise ValueError(f"must be the path of a readable file; {path_shown(path)}: {reason}")
