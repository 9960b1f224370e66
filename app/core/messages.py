"""What is done with messages that were read from the table, or follow it."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.destination import Destination
from app.core.message import Message
from app.pieces import Pieces


def note_destination(messages: Sequence[Message], destination: Destination) -> Sequence[Message]:
    """Note the Kafka topic of messages that were read from the table; return them."""
    for message in messages:
        message.destination = destination
    return messages


def in_memory(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the first messages, up to one whose payload is in the table alone."""
    for count, message in enumerate(messages):
        if isinstance(message.payload, Pieces):
            return messages[:count]
    return messages
