"""The certificates, keys and authorities that librdkafka read when it started, which somebody may replace.

They are replaced before they expire, by hand or by a program, and librdkafka never reads them again. So when a TLS
handshake fails, they are compared with what was read; if they differ, the producer is replaced and reads the new ones.

Each time before a client of librdkafka is made, and reads them, they are looked at as at the start: one that everybody
may write to is not used, as the server that it vouches for would be sent the password.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from app.settings.files import name_shown
from app.settings.producer_properties import ALLOWED, File
from app.settings.tls_context import may_be_replaced
from app.throttle import Throttle

log = logging.getLogger(__name__)

VARIABLES = {
    "ssl.ca.location": "KAFKA_CA_FILE",
    "ssl.certificate.location": "KAFKA_CERT_FILE",
    "ssl.key.location": "KAFKA_KEY_FILE",
}

_VARIABLES_IN_ERRORS = {**VARIABLES, "https.ca.location": "SASL_OAUTHBEARER_CA_FILE"}


class UntrustedFileError(KafkaException):
    """A file that librdkafka would read is one that a start refuses; with a sentence that names it and the reason."""


def check_files(configuration: Mapping[str, Any]) -> None:
    """Try the files of librdkafka's properties, before it reads them.

    Raises:
        UntrustedFileError: Everybody may write to one, or it is none. Of one that cannot be read librdkafka tells.
    """
    for name, kind in ALLOWED.items():
        if not isinstance(kind, File) or not configuration.get(name):
            continue
        with contextlib.suppress(OSError):
            _check(name, kind, str(configuration[name]))


def _check(name: str, kind: File, path: str) -> None:
    try:
        kind.check(path)
    except ValueError as error:
        variable, own = _VARIABLES_IN_ERRORS.get(name), f"{name} in KAFKA_PRODUCER_CONFIG"
        setting = f"{variable} (or {own})" if variable else own
        text = f"{setting} is not used: {name_shown(path)}: {error}"
        raise UntrustedFileError(KafkaError(KafkaError._SSL, text)) from None  # noqa: SLF001, librdkafka's own codes


class ReplacedFiles:
    """What the files were when they were read."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Take librdkafka's properties; nothing is read yet."""
        self._configuration = dict(configuration)
        self._throttle = Throttle(log)
        self._paths = {
            variable: Path(str(configuration[name])) for name, variable in VARIABLES.items() if configuration.get(name)
        }
        self._read = self._look()

    def note_read(self) -> None:
        """Note that they are read now.

        Raises:
            UntrustedFileError: They are not to be read.
        """
        check_files(self._configuration)
        self._read = self._look()

    def changed(self) -> list[str]:
        """Return the variables whose files are not those that were read; one that is missing has not changed yet.

        None while one is not to be read, which is logged: what librdkafka has read is better than nothing.
        """
        now = self._look()
        changed = [variable for variable, seen in now.items() if seen is not None and seen != self._read[variable]]
        try:
            check_files(self._configuration if changed else {})
        except UntrustedFileError as error:
            names, why = " and ".join(changed), error.args[0].str()
            self._throttle.error("files", "%s changed, and librdkafka goes on with what it had read: %s", names, why)
            return []
        return changed

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
