"""What a value of the database must be; anything else is refused where it is read.

The checksums of RocksDB find what the disk has changed. They do not find what another program or another version wrote.
Such a value must not become a wrong message, nor end the worker with an error that explains nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from app.errors import DataDirectoryError
from app.pieces import BEGINNING_BYTES, PIECE_BYTES
from tables.piece_keys import NAME_BYTES

LARGEST_NUMBER = 2**63 - 1
SHOWN_KEY_BYTES = 100
LONGEST_PAYLOAD_BYTES = 2**28  # MQTT has no longer packet


def unreadable(key: bytes, why: object) -> DataDirectoryError:
    """Make the error for a value that no Connector of this format wrote."""
    shown = f"{key[:SHOWN_KEY_BYTES]!r}" + ("..." if len(key) > SHOWN_KEY_BYTES else "")
    advice = "keep a copy of DB_PERSIST_PATH, and start the version that wrote it, or begin with an empty directory"
    if key.startswith(b"D"):
        advice = f"it is the dead letter {key[1 : 1 + SHOWN_KEY_BYTES].hex()}, which can be deleted by this id"
    return DataDirectoryError(
        f"what the table has under {shown} is not what this version of Connector writes ({why}); nothing was changed: "
        f"{advice}"
    )


def is_number(value: object) -> bool:
    """Whether it is a whole number that is not negative and fits eight bytes."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def is_two_numbers(value: object) -> bool:
    """Whether it is a list of two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def is_three_numbers(value: object) -> bool:
    """Whether it is a list of three numbers."""
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


def is_counts(value: object) -> bool:
    """Whether it is a number of messages and their bytes; below zero as well, as a wrong count stops nothing."""
    return isinstance(value, list) and len(value) == 2 and all(type(count) is int for count in value)


def is_texts(value: object) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def is_times_by_text(value: object) -> bool:
    """Whether it names a time, or another number, for each of some texts."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and (is_number(number) or (isinstance(number, float) and number >= 0))
        for name, number in value.items()
    )


def is_numbers_by_text(value: object) -> bool:
    """Whether it names a whole number for each of some texts; -1 is how Kafka writes "for ever"."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and (is_number(number) or number == -1) for name, number in value.items()
    )


def are_pieces(value: object) -> bool:
    """Whether it names the pieces of a payload: their name, the payload's length and its beginning."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    name, size_bytes, beginning = value
    return (
        type(name) is type(beginning) is bytes
        and len(name) == NAME_BYTES
        and type(size_bytes) is int
        and PIECE_BYTES < size_bytes <= LONGEST_PAYLOAD_BYTES
        and len(beginning) <= BEGINNING_BYTES
    )


def is_text_with_bytes(value: object) -> bool:
    """Whether it is a dead letter's value: a Kafka topic, and an entry."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], bytes)


# By the name of a single value (M in tables.layout).
SINGLE_VALUES: dict[str, Callable[[object], bool]] = {
    "format": is_number,
    "epoch": is_number,
    "limit": is_number,
    "salvaged": is_number,
    "dead": is_counts,
    "first_write": is_two_numbers,
    "filters": is_texts,
    "left": is_texts,
    "left_out": is_texts,
    "generations": is_numbers_by_text,
    "keeps": is_numbers_by_text,
    "granted_at": is_times_by_text,
    "asked_qos": is_numbers_by_text,
}
