"""The single values that the table remembers from start to start, most of them about the broker's session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import layout
from tables.engine.ballast import free_bytes
from tables.shapes import is_two_numbers

if TYPE_CHECKING:
    from tables.engine.store import Store

# If it is damaged, what can be read of it must find room beside it (tables.sizes).
FREE_SPACE_SHARE = 0.3
MEMORY_LIMIT_BYTES = 256 * 1000 * 1000


class Metadata:
    """Reads them; a write sets them (`TableWrite.set_meta`)."""

    def __init__(self, store: Callable[[], Store]) -> None:
        """Take what returns the database."""
        self._store = store

    def value(self, name: str, default: Any) -> Any:
        """Return a value by its name."""
        key = layout.META + name.encode()
        found = self._store().value(key)
        return default if found is None else layout.unpack_single(key, found)

    def limit_bytes(self, directory: Path | None) -> int:
        """Return the byte limit that the first start chose, by what was free then; of a table in memory a fixed one."""
        if directory is None:
            return MEMORY_LIMIT_BYTES
        return int(self.value("limit", free_bytes(directory) * FREE_SPACE_SHARE))

    def packet_identifiers(self) -> dict[int, int]:
        """Return the packet identifiers of stored QoS 2 messages that await PUBREL, with the messages' fingerprints."""
        found = self._store().with_prefix(layout.PACKET_IDENTIFIER)
        return {int.from_bytes(key[1:], "big"): layout.unpack(key, value, is_two_numbers)[1] for key, value in found}

    def filters(self) -> list[str] | None:
        """Return the filters that the broker's session had, None if that is unknown."""
        found: list[str] | None = self.value("filters", None)
        return found

    def left_filters(self) -> list[str]:
        """Return the filters that the session had when a drain began which nothing was subscribed to since."""
        found: list[str] = self.value("left", [])
        return found

    def generations(self) -> dict[str, int]:
        """Return when each subscription was made, by filter."""
        found: dict[str, int] = self.value("generations", {})
        return found

    def kept_by_topics(self) -> dict[str, int]:
        """Return how many milliseconds Kafka topics keep a record, as far as it was known last."""
        found: dict[str, int] = self.value("keeps", {})
        return found

    def granted_at(self) -> dict[str, float]:
        """Return when each subscription was granted first (Unix seconds), by filter."""
        found: dict[str, float] = self.value("granted_at", {})
        return found

    def asked_qos(self) -> dict[str, int]:
        """Return with which QoS each filter was asked for."""
        found: dict[str, int] = self.value("asked_qos", {})
        return found

    def left_out(self) -> list[str]:
        """Return the filters at which the broker closes the connection."""
        found: list[str] = self.value("left_out", [])
        return found
