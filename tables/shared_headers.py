"""Headers of messages that are read from the table: what most messages have in common is in memory once.

20,000 such messages may be in flight. Read as they are, each has the names and its headers for QoS and RETAIN to
itself, a quarter of what it takes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.message import Header

_FIRST, _SECOND = "connector-id", "mqtt-topic"
_QOS = [("mqtt-qos", value) for value in (b"0", b"1", b"2")]
_RETAIN = [("mqtt-retain", value) for value in (b"0", b"1")]
_DUP = [[], [("mqtt-dup", b"1")]]
# What follows the first two, in messages without properties.
_USUAL = {(qos, retain, *dup): (qos, retain, *dup) for qos, retain, dup in itertools.product(_QOS, _RETAIN, _DUP)}


def checked(value: object) -> list[Header] | None:
    """Return the headers of a record, None if they are of another kind.

    Raises:
        ValueError: One of them is no pair; or a TypeError.
    """
    if type(value) is not tuple:
        return None
    usual = _USUAL.get(value[2:])
    if usual is not None:
        (first, identifier), (second, topic) = value[:2]
        if first == _FIRST and second == _SECOND and type(identifier) is type(topic) is bytes:
            return [(_FIRST, identifier), (_SECOND, topic), *usual]
    for name, content in value:
        if type(name) is not str or type(content) is not bytes:
            return None
    return list(value)
