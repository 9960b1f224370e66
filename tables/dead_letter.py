"""A dead letter, as it is read from the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.bounds import LEFT_OUT_HEADER, cost_of_added
from app.characters import text_of
from app.core.message import MESSAGE_OVERHEAD_BYTES, Message
from app.core.null_value import NullValue
from app.errors import ConnectorError
from app.pieces import Pieces
from app.routes import ILLEGAL_KAFKA_TOPIC, TOO_MANY_KAFKA_TOPICS, RouteTable, Template, resolve
from tables import layout
from tables.entry import unpack_entry
from tables.piece_keys import ENTRY_OVERHEAD_BYTES, pieces_bytes
from tables.shapes import is_text_with_bytes, unreadable

NO_KEY = Template("")
SHOWN_BYTES = 60  # no more than BEGINNING_BYTES, of a dead letter's payload


class DeadLetter(NamedTuple):
    """A message that could not go to Kafka as it is.

    Attributes:
        key: Its key in the table.
        value_bytes: The length of its value there, and what its pieces take.
        topic: The Kafka topic that would not take it, and that a retry goes to; empty if it belonged to no route.
        message: The message, with its `dead_reason`.
    """

    key: bytes
    value_bytes: int
    topic: str
    message: Message

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> DeadLetter:
        """Return the dead letter of an entry; one that DEAD_LETTER_TOPIC refused too is what it was before that.

        Raises:
            DataDirectoryError: The value is not of this format.
        """
        topic, entry = layout.unpack(key, value, is_text_with_bytes)
        message = unpack_entry(key, entry)
        try:
            own_topic = message.remove_dead_letter_headers()
        except UnicodeDecodeError as error:
            raise unreadable(key, error) from error
        value_bytes = len(value) + (pieces_bytes(message.pieces) if message.is_in_pieces else 0)
        return cls(key, value_bytes, topic if own_topic is None else own_topic, message)

    @property
    def id(self) -> str:
        """What the operator calls it by."""
        return self.key[1:].hex()

    @property
    def entry_bytes(self) -> int:
        """What it counts for."""
        return len(self.key) + self.value_bytes + ENTRY_OVERHEAD_BYTES

    @property
    def retried_bytes(self) -> int:
        """What it counts for while it is retried: as a message, with its headers, and a payload that is in pieces."""
        return self.message.size_bytes

    @property
    def mqtt_topic(self) -> str:
        """Its MQTT topic as text, not escaped; what is not UTF-8 in it is shown as Python writes bytes."""
        return text_of(dict(self.message.headers).get("mqtt-topic", b""))

    @property
    def beginning(self) -> str:
        """How its payload begins, as text that anything can be pasted with."""
        payload = self.message.payload
        if isinstance(payload, NullValue):
            return "null"
        beginning = payload.beginning if isinstance(payload, Pieces) else payload
        return repr(beginning[:SHOWN_BYTES])[1:] + ("..." if len(payload) > SHOWN_BYTES else "")

    def revived(self, key: bytes) -> Message:
        """Return the message under a new key, to be stored once more; that ends the dead letter."""
        old = self.message
        size_bytes = old.size_bytes - MESSAGE_OVERHEAD_BYTES  # with its headers, as it counted when it was read
        message = Message(b"", old.payload, 0, 0, 0, b"", old.timestamp_ms, None, size_bytes)
        message.key, message.route = key, old.route
        message.share_pieces_of(old)
        message.share_time_of(old)
        message.record_key, message.headers = old.record_key, old.headers
        message.dead_letter_key = self.key
        message.kept_since = old.kept_since
        message.safe = True
        return message


def mapped(letters: Iterable[DeadLetter], routes: RouteTable, *, all_of_them: bool = False) -> Iterator[DeadLetter]:
    """Iterate over the dead letters that have a Kafka topic to go to, that of the route which matches them now.

    Args:
        letters: Some dead letters.
        routes: All routes.
        all_of_them: They were named: each must have one, before the first is given.

    Raises:
        ConnectorError: There are some, and none of them has one; raised at the end.
    """
    found, lost = False, None
    if all_of_them:
        matched = [(letter, with_topic(letter, routes)) for letter in letters]
        lost = next((letter for letter, match in matched if match is None), None)
        letters = [match for _, match in matched if match is not None] if lost is None else ()
    for letter in letters:
        match = with_topic(letter, routes)
        if match is not None:
            found = True
            yield match
        else:
            lost = letter
    if lost is not None and not found:
        raise unmapped_error(lost)


def unmapped_error(lost: DeadLetter) -> ConnectorError:
    """Return the error that says that nothing is retried, as no route has a Kafka topic for a dead letter."""
    if lost.topic or lost.message.dead_reason == TOO_MANY_KAFKA_TOPICS:
        text = "nothing was changed: as many Kafka topics are in use as ROUTES_MAX_TOPICS allows"
        return ConnectorError(f"{text}; raise it, restart the worker, and retry (the id of one is {lost.id})")
    if lost.message.dead_reason == ILLEGAL_KAFKA_TOPIC:
        text = f"nothing was changed: its route makes no legal Kafka topic of the MQTT topic {lost.mqtt_topic!r}"
        return ConnectorError(f"{text}: change the route, reload or restart, and retry (its id is {lost.id})")
    advice = "add a route, reload or restart, and retry" if lost.mqtt_topic else "look what it is, and delete it"
    text = f"nothing was changed: no route matches the MQTT topic {lost.mqtt_topic!r}: {advice}"
    return ConnectorError(f"{text} (its id is {lost.id})")


def with_topic(letter: DeadLetter, routes: RouteTable) -> DeadLetter | None:
    """Return a dead letter with its Kafka topic, and what its route adds if it had none; None if it has none yet."""
    if letter.topic:
        return letter
    message = letter.message
    resolved = resolve(routes, dict(message.headers).get("mqtt-topic", b""), NO_KEY)
    if not resolved.kafka_topic:
        return None
    route = resolved.matches[0]
    message.route = route.name
    if route.makes_tombstones and not message.payload:
        message.become_tombstone()
    if route.key is not None:
        message.record_key = resolved.record_key
    names = route.header_names  # a publisher may have named one, as the trace context and events
    message.headers = [*(header for header in message.headers if header[0] not in names), *resolved.headers]
    if resolved.left_out:
        message.headers.append((LEFT_OUT_HEADER, b"%d" % resolved.left_out))
    message.size_bytes += cost_of_added(resolved.record_key if route.key is not None else None, resolved.headers)
    return letter._replace(topic=resolved.kafka_topic)
