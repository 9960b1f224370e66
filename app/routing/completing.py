"""What a message's record needs beyond what all messages like it have in common (`CachedRoute.needs_more`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.mqtt.properties import expiry_header
from app.routing.device_times import give_time

if TYPE_CHECKING:
    from app.core.message import Message
    from app.routing.known_routes import CachedRoute


def complete(message: Message, found: CachedRoute) -> None:
    """Complete the record of a message that was routed, and count what was made of its topic."""
    message.size_bytes += found.more_bytes
    if found.time_property:
        give_time(message, found)
    if found.expiry_at:
        message.headers.append(expiry_header(message, found.expiry_at))
    if found.makes_tombstones and not message.payload:
        message.become_tombstone()
