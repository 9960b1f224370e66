"""The file `.env`: what it sets, and why it is refused. No line that looks like a setting is lost without a word.

The line may be the one that asks for TLS. It is lost where another one cannot be read, where a quote before it is
closed behind it, where it stands behind a value or a sign that editors show as the end of a line, and where its name
comes once more with another value. Errors have numbers of lines and names of settings, never what else is in a line.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream

from app.settings.files import text_in

if TYPE_CHECKING:
    from dotenv.parser import Binding

# Of other programs too, which have their own rules; no quotes, colons, or what cannot be seen.
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LINE_END = re.compile(r"\r\n|\n|\r")
# Editors and terminals begin a new line there; python-dotenv does not.
_OTHER_LINE_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_NAMED = r"""(?:export\s+)?['"]?([A-Za-z_][\w.-]*)['"]?\s*="""
# Not the end of a text in base64, which has nothing behind its signs.
_VARIABLE = re.compile(rf"\s*{_NAMED}(?!=*\s*$)")
_BEHIND_A_BLANK = re.compile(rf"\s{_NAMED}")
_QUOTED = re.compile(r"^[^=]*=\s*['\"]")


def text_of_env_file(path: Path) -> str:
    """Return what is in a `.env`; nothing if there is none, or a directory (as some call that of Python's packages).

    The null device stands for none, as containers have it mounted in the place of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: See `text_in`.
    """
    if not os.path.lexists(path):
        return ""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode) or os.path.samestat(found, Path(os.devnull).stat()):
        return ""
    return text_in(path, is_named=False)


def values_in(text: str, ours: Collection[str]) -> dict[str, str]:
    """Return what a `.env` sets, as written: a password may contain "${".

    Args:
        text: What is in it.
        ours: The names of settings.

    Raises:
        ValueError: A line may be lost; with its number.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        whole = binding.original.string
        line = binding.original.line + len(_LINE_END.findall(whole[: len(whole) - len(whole.lstrip())]))
        _check(binding, line)
        name, value = binding.key, binding.value
        if name is None or value is None:
            continue
        _check_lines_of_a_value(whole.strip(), line, ours)
        if not _QUOTED.search(whole) and (other := _named_in(f" {value}", ours)):
            raise ValueError(f"line {line} has {other}= behind the = of another variable; give it a line of its own")
        if name in ours and values.get(name, value) != value:
            raise ValueError(f"{name} is set twice, in line {lines[name]} and line {line}, to different values")
        values[name], lines[name] = value, line
    return values


def _check(binding: Binding, line: int) -> None:
    """See that a line sets something, or is a comment or empty."""
    whole = binding.original.string
    if "\0" in whole:
        raise ValueError(f"line {line} or one after it has the character NUL in it")
    if _OTHER_LINE_END.search(whole):
        raise ValueError(
            f"line {line} or one after it has a character in it that looks like the end of a line and is none, such as "
            "U+2028"
        )
    if binding.error or (binding.key is not None and binding.value is None):
        raise ValueError(f"line {line} is no NAME=VALUE; is a quote left open, or the = missing?")
    if binding.key is not None and not _NAME.fullmatch(binding.key):
        raise ValueError(f"line {line} has no name of a variable before its =; allowed are letters, digits and _")


def _check_lines_of_a_value(whole: str, line: int, ours: Collection[str]) -> None:
    """See that the quotes of a value have no variable between them, as where the first one was left open."""
    _, *more = _LINE_END.split(whole)
    for number, text in enumerate(more, line + 1):
        if _VARIABLE.match(text) or _named_in(f" {text}", ours):
            raise ValueError(
                f"the quote in line {line} is closed in line {line + len(more)}, and line {number} within it looks "
                "like a variable; close the quote in its own line, or put the value into a file"
            )


def _named_in(text: str, ours: Collection[str]) -> str:
    """Return the first setting that is set behind a blank in a text, in whichever spelling; else nothing."""
    found = (name.upper().replace("-", "_").replace(".", "_") for name in _BEHIND_A_BLANK.findall(text))
    return next((name for name in found if name in ours), "")
