"""Shared subscriptions (MQTT 5, section 4.8.2): the name of a group, and a filter as a group subscribes to it."""

from collections.abc import Sequence

from app.routes.filters import MAX_FILTER_BYTES
from app.routes.route import Route


def shared_filter(group: str, mqtt_filter: str) -> str:
    """Return what a member of the group subscribes to; the messages carry their plain topics all the same."""
    return f"$share/{group}/{mqtt_filter}"


def plain_filter(subscribed: str) -> str:
    """Return the filter as it is written in a route."""
    return subscribed.split("/", 2)[2] if subscribed.startswith("$share/") else subscribed


def validate_shared_group(text: str) -> None:
    """Check a group's name by the rules of MQTT [MQTT-4.8.2-1, MQTT-4.8.2-2].

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    allowed = "allowed is printable text of at least one character, without '/', '+' and '#'"
    if not text or any(character in "/+#" or not character.isprintable() for character in text):
        raise ValueError(f"{text[:80]!r} is no name of a group; {allowed}")


def check_room_for_group(group: str, routes: Sequence[Route]) -> None:
    """Check that the filters are short enough to be shared; an empty group: they are not shared.

    Raises:
        ValueError: with a sentence that names the longest one.
    """
    longest = max((shared_filter(group, route.mqtt_filter) for route in routes), key=_size_bytes, default="")
    if group and _size_bytes(longest) > MAX_FILTER_BYTES:
        raise ValueError(
            f"the MQTT filter {longest[:60]!r}... is {_size_bytes(longest)} bytes long with MQTT_SHARED_GROUP before "
            f"it, at most {MAX_FILTER_BYTES} are allowed"
        )


def _size_bytes(text: str) -> int:
    return len(text.encode("utf-8"))
