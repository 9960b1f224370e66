"""The librdkafka properties that KAFKA_PRODUCER_CONFIG may set, each with the values that it may have.

It is a list of what is allowed: what nobody has thought of is refused, such as a property that a later librdkafka has,
or one that it has for its own tests. `python -m tools.documents` writes the list into docs/kafka-client.md.

The ranges are librdkafka's, narrowed where a value would break a promise: no bound on memory, no pause between two
attempts to connect, statistics that come too rarely to judge by, or never.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from app.settings.files import NO_COLON, check_authorities_in, check_file

LONGEST_TEXT_CHARACTERS = 255
LONGEST_PEM_CHARACTERS = 500_000  # all authorities that a system knows are 220,000
_NUMBER = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{1,6})?")
_TRUE, _FALSE = {"true", "1"}, {"false", "0"}


@dataclass(frozen=True)
class Number:
    """A number within limits that are both allowed."""

    lowest: int
    highest: int
    whole: bool = True

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"a {'whole ' if self.whole else ''}number from {self.lowest} to {self.highest}"

    def read(self, value: object) -> float | None:
        """Return the value as librdkafka is given it, None if it is not allowed."""
        text = str(value).strip()
        if isinstance(value, bool) or not _NUMBER.fullmatch(text):
            return None
        number = float(text)
        if not (math.isfinite(number) and self.lowest <= number <= self.highest):
            return None
        if number.is_integer():
            return int(number)
        return None if self.whole else number


@dataclass(frozen=True)
class Flag:
    """True or false."""

    allowed = "true or false"

    def read(self, value: object) -> str | None:
        """Return the value as librdkafka is given it, None if it is not allowed."""
        text = str(value).strip().lower()
        return "true" if text in _TRUE else "false" if text in _FALSE else None


@dataclass(frozen=True)
class Words:
    """One of a few words, or several of them with commas."""

    words: tuple[str, ...]
    several: bool = False

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"{'some' if self.several else 'one'} of {', '.join(self.words)}"

    def read(self, value: object) -> str | None:
        """Return the value as librdkafka is given it, None if it is not allowed."""
        if not isinstance(value, str):
            return None
        text = value.strip().lower()
        given = [word.strip() for word in text.split(",")] if self.several else [text]
        return ",".join(given) if set(given) <= set(self.words) else None


@dataclass(frozen=True)
class Text:
    """Any text without characters that a C string or a log line cannot hold.

    A whole number is the text that it is written as; of another one, such as 1.10, the text is not known any more.
    """

    longest_characters: int = LONGEST_TEXT_CHARACTERS
    lines: bool = False

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        kind = "PEM text" if self.lines else "text of printable characters"
        return f"{kind}, 1 to {self.longest_characters} characters"

    def read(self, value: object) -> str | None:
        """Return the value as librdkafka is given it, None if it is not allowed."""
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        printable = re.sub(r"[\r\n\t]", "", text) if self.lines else text
        if not 0 < len(text) <= self.longest_characters or not printable.isprintable():
            return None
        return text


@dataclass(frozen=True)
class File:
    """The path of a file that does not hang the start, as a pipe would; or of a directory with authorities.

    Not of one that everybody may write to: it would decide whom we trust.
    """

    directories: bool = False

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        what = f", or of a directory with such files, or probe; a directory {NO_COLON}" if self.directories else ""
        return f"the path of a readable, regular file that not everybody may write to{what}"

    def read(self, value: object) -> str | None:
        """Return the value as librdkafka is given it, None if it is not allowed."""
        path = Text(4096).read(value) if isinstance(value, str) else None
        if path is not None:
            try:
                self.check(path)
            except (OSError, ValueError):
                return None
        return path

    def check(self, path: str) -> None:
        """Try whether what is there now may be read, also when it was allowed once.

        Raises:
            OSError: It cannot be read.
            ValueError: What it is, or that everybody may write to it.
        """
        if self.directories and path == "probe":  # where the system has its own
            return
        if self.directories and Path(path).is_dir():
            check_authorities_in(path)
        else:
            check_file(path)


Kind = Number | Flag | Words | Text | File

_FILE, _AUTHORITIES, _PEM, _MINUTES = (
    File(),
    File(directories=True),
    Text(LONGEST_PEM_CHARACTERS, lines=True),
    Number(0, 3_600_000),
)
_COMPRESSIONS = Words(("none", "gzip", "snappy", "lz4", "zstd"))
_CONTEXTS = (
    "generic,broker,topic,metadata,feature,queue,msg,protocol,security,interceptor,plugin,admin,eos,conf,telemetry,all"
)
# As large as batches may become where all topics take them: half of what topics take by default, as a limit may be
# lowered while the worker runs, and one refused record must not fail the others of its batch.
LARGEST_BATCH_BYTES = 524_288

# What it is about: property: what it may be.
GROUPS: dict[str, dict[str, Kind]] = {
    "Batches and the queue": {
        "linger.ms": Number(0, 900_000, whole=False),
        "queue.buffering.max.ms": Number(0, 900_000, whole=False),
        "batch.size": Number(1, LARGEST_BATCH_BYTES),
        "batch.num.messages": Number(1, 1_000_000),
        "compression.type": _COMPRESSIONS,
        "compression.codec": _COMPRESSIONS,
        "compression.level": Number(-1, 12),
        "message.max.bytes": Number(1000, 1_000_000_000),
        "queue.buffering.max.messages": Number(1, 10_000_000),
        "queue.buffering.max.kbytes": Number(1, 10_485_760),
        "queue.buffering.backpressure.threshold": Number(1, 1_000_000),
        "sticky.partitioning.linger.ms": Number(0, 900_000),
    },
    "Connections": {
        "request.timeout.ms": Number(100, 900_000),
        "socket.timeout.ms": Number(100, 300_000),
        "socket.connection.setup.timeout.ms": Number(1000, 300_000),
        "socket.send.buffer.bytes": Number(0, 100_000_000),
        "socket.receive.buffer.bytes": Number(0, 100_000_000),
        "socket.keepalive.enable": Flag(),
        "socket.nagle.disable": Flag(),
        "socket.max.fails": Number(0, 1_000_000),
        "connections.max.idle.ms": Number(0, 2_147_483_647),
        "reconnect.backoff.ms": Number(10, 3_600_000),
        "reconnect.backoff.max.ms": Number(10, 3_600_000),
        "retry.backoff.ms": Number(10, 300_000),
        "retry.backoff.max.ms": Number(10, 300_000),
        "broker.address.family": Words(("any", "v4", "v6")),
        "broker.address.ttl": Number(0, 86_400_000),
        "client.dns.lookup": Words(("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only")),
        "receive.message.max.bytes": Number(1_000_000, 2_147_483_647),
    },
    "Topics and nodes": {
        "allow.auto.create.topics": Flag(),
        "metadata.max.age.ms": Number(1000, 86_400_000),
        "metadata.recovery.strategy": Words(("none", "rebootstrap")),
        "metadata.recovery.rebootstrap.trigger.ms": _MINUTES,
        "topic.metadata.refresh.interval.ms": Number(1000, 3_600_000),
        "topic.metadata.refresh.fast.interval.ms": Number(10, 60_000),
        "topic.metadata.propagation.max.ms": _MINUTES,
    },
    "What Kafka is told of the client": {
        "client.id": Text(),
        "client.rack": Text(),
        "enable.metrics.push": Flag(),
    },
    "Log and statistics": {
        "debug": Words(tuple(_CONTEXTS.split(",")), several=True),
        "log_level": Number(0, 7),
        "log.connection.close": Flag(),
        "statistics.interval.ms": Number(100, 60_000),
    },
    "TLS": {
        "ssl.ca.location": _AUTHORITIES,
        "ssl.ca.pem": _PEM,
        "ssl.certificate.location": _FILE,
        "ssl.certificate.pem": _PEM,
        "ssl.key.location": _FILE,
        "ssl.key.pem": _PEM,
        "ssl.key.password": Text(),
        "ssl.keystore.location": _FILE,
        "ssl.keystore.password": Text(),
        "ssl.crl.location": _FILE,
        "ssl.cipher.suites": Text(4096),
        "ssl.curves.list": Text(),
        "ssl.sigalgs.list": Text(4096),
        "ssl.endpoint.identification.algorithm": Words(("https", "none")),
        "enable.ssl.certificate.verification": Flag(),
        "https.ca.location": _AUTHORITIES,
        "https.ca.pem": _PEM,
    },
    "Signing in with OAUTHBEARER": {
        "sasl.oauthbearer.scope": Text(4096),
        "sasl.oauthbearer.extensions": Text(4096),
        "sasl.oauthbearer.sub.claim.name": Text(),
    },
}
ALLOWED: dict[str, Kind] = {name: kind for group in GROUPS.values() for name, kind in group.items()}
# Two names of one property: what is written under the first goes by the second.
ALIASES = {"queue.buffering.max.ms": "linger.ms", "compression.codec": "compression.type"}
# Only TLS gives them a meaning: without it they would make believe that it is on.
NEEDS_TLS = frozenset(name for name in GROUPS["TLS"] if "password" not in name and not name.startswith("https."))
