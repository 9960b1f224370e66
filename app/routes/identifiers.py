"""MQTT 5 subscription identifiers that stay the same across configurations."""

from collections.abc import Collection, Iterable
from hashlib import blake2b

MAX_SUBSCRIPTION_IDENTIFIER = 268_435_455


def subscription_identifiers(filters: Iterable[str], taken: Collection[int] = ()) -> dict[str, int]:
    """Give each filter its MQTT 5 subscription identifier, 1 to 268435455.

    The identifier follows from the filter's text alone, not from its place in the settings: copies that wait in the
    broker's session carry the identifier of the configuration under which they were queued, and the first match is
    recognised by it after a restart with other routes ([MQTT-3.8.2.1.2]). For shared filters there is more in the
    text than the filter, see `app.mqtt.shared`. Where two filters collide, the one that
    sorts first keeps its identifier and the other tries its next, whatever the order in which they are given. `taken`
    are those of other filters, which keep them.
    """
    identifiers: dict[str, int] = {}
    taken = set(taken)
    for text in sorted(set(filters)):
        attempt = 0
        while (identifier := _identifier(text, attempt)) in taken:
            attempt += 1
        taken.add(identifier)
        identifiers[text] = identifier
    return identifiers


def _identifier(text: str, attempt: int) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=attempt.to_bytes(4, "big")).digest()
    return int.from_bytes(digest, "big") % MAX_SUBSCRIPTION_IDENTIFIER + 1
