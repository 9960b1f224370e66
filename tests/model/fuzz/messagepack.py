"""The part of MessagePack that the table's values are written in, read apart from the library."""

from __future__ import annotations

import io
import struct

DEEPEST = 50


class WrongError(Exception):
    """Not of this part of MessagePack, or of another shape than asked for."""


def read(data):
    """Return the one value that the data are; lists as tuples."""
    stream = io.BytesIO(data)
    value = _value(stream, 0)
    if stream.read(1):
        raise WrongError
    return value


def _exactly(stream, size):
    data = stream.read(size)
    if len(data) < size:
        raise WrongError
    return data


def _number(stream, form):
    return struct.unpack(">" + form, _exactly(stream, struct.calcsize(form)))[0]


_NUMBERS = {0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}
_BYTES = {0xC4: "B", 0xC5: "H", 0xC6: "I"}
_TEXTS = {0xD9: "B", 0xDA: "H", 0xDB: "I"}
_LISTS = {0xDC: "H", 0xDD: "I"}


def _value(stream, depth):
    first = _exactly(stream, 1)[0]
    if first < 0x80 or first >= 0xE0:
        return first - 256 if first >= 0xE0 else first
    if first in _NUMBERS:
        return _number(stream, _NUMBERS[first])
    if first in _BYTES:
        return _exactly(stream, _number(stream, _BYTES[first]))
    if 0xA0 <= first < 0xC0 or first in _TEXTS:
        return _text(stream, _number(stream, _TEXTS[first]) if first in _TEXTS else first - 0xA0)
    if 0x90 <= first < 0xA0 or first in _LISTS:
        return _list(stream, _number(stream, _LISTS[first]) if first in _LISTS else first - 0x90, depth)
    if first != 0xC0:
        raise WrongError  # a float, a map, a truth value, an extension: not in what is compared here
    return None


def _text(stream, size):
    try:
        return _exactly(stream, size).decode()
    except UnicodeDecodeError as error:
        raise WrongError from error


def _list(stream, size, depth):
    if depth >= DEEPEST:
        raise WrongError
    return tuple(_value(stream, depth + 1) for _ in range(size))
