"""The certificates, keys and authorities that librdkafka read when it started, which somebody may replace.

They are replaced before they expire, by hand or by a program, and librdkafka never reads them again. So when a TLS
handshake fails, they are compared with what was read; if they differ, the producer is replaced and reads the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.settings.tls_context import may_be_replaced

VARIABLES = {
    "ssl.ca.location": "KAFKA_CA_FILE",
    "ssl.certificate.location": "KAFKA_CERT_FILE",
    "ssl.key.location": "KAFKA_KEY_FILE",
}


class ReplacedFiles:
    """What the files were when they were read."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Take librdkafka's properties; nothing is read yet."""
        self._paths = {
            variable: Path(str(configuration[name])) for name, variable in VARIABLES.items() if configuration.get(name)
        }
        self._read = self._look()

    def note_read(self) -> None:
        """Note that they are read now."""
        self._read = self._look()

    def changed(self) -> list[str]:
        """Return the variables whose files are not those that were read; one that is missing has not changed yet."""
        now = self._look()
        return [variable for variable, seen in now.items() if seen is not None and seen != self._read[variable]]

    def may_be_replaced(self) -> bool:
        """Tell whether somebody may be replacing them right now."""
        return bool(self._paths) and may_be_replaced(*self._paths.values())

    def _look(self) -> dict[str, tuple[int, int, int] | None]:
        return {variable: _identity(path) for variable, path in self._paths.items()}


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file, through links, as of those that Kubernetes mounts; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
