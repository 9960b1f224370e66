"""The memory limit in force, and how much of it each part of the worker may use.

The limit is the smallest of what a control group (version 1 or 2, each one up to the top), RLIMIT_AS, RLIMIT_DATA and
half of the machine's memory allow. It decides how large a message may be, and how much may be in memory at once.
Each message exists several times on its way: these numbers were measured, see docs/performance.md.
How Python and the C library give memory back is set here as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MEBIBYTE = 1024 * 1024
# Without any large message: Python and libraries, RocksDB's buffers, what is known of topics, 5,000 small messages, and
# the lanes of some Kafka topics.
PROCESS_BYTES = 160 * MEBIBYTE
SOME_TOPICS = 100
# A Kafka topic with one partition takes 45 KB: librdkafka's counters for its statistics 29, what else it has of it 4,
# our lane 4, and what is known of it. 9,000 of them were measured.
KAFKA_TOPIC_BYTES = 45 * 1024
# An address space also holds what is never touched: libraries, the stacks and arenas of threads.
UNTOUCHED_BYTES = {"RLIMIT_AS": 1024 * MEBIBYTE, "RLIMIT_DATA": 256 * MEBIBYTE}
SAFE_SHARE = 0.9  # of the limit: what the kernel counts in addition, and the fragments between what is used
MACHINE_SHARE = 0.5  # brokers and others live there too
# Of the largest message, at the worst moment: what was received, librdkafka's copy of an earlier one and that one's
# payload and compressed form; while one is stored, its entry, the write, RocksDB's buffer, and the block of its file.
COST_OF_LARGEST = 9
SMALLEST_PACKET_BYTES = MEBIBYTE  # accepted however little memory there is
IN_FLIGHT_BYTES = 64 * MEBIBYTE  # as much as is of use: more only takes longer to store
# Less than a lane may have in flight (`app.core.in_flight`): of large messages that come fast, the socket is read no
# more while Kafka confirms, and none has to go through the table because others are before it.
RECEIVED_BYTES = 24 * MEBIBYTE
NO_LIMIT_BYTES = 1 << 60  # control groups say something near 2**63

MMAP_THRESHOLD, ARENA_MAX = -3, -8  # the names of glibc's parameters in its header
LARGE_ALLOCATION_BYTES = MEBIBYTE
ARENAS = 2
TRIM_SECONDS = 20.0  # it takes 12 ms of a thread after a drain, and less than 1 ms else
COLLECT_AFTER_OBJECTS = 200_000  # made and not freed: more than messages in flight come to


class MemoryLimit(NamedTuple):
    """How much memory the process may take, and who says so."""

    size_bytes: int
    source: str


class PacketLimit(NamedTuple):
    """The largest packet that is accepted.

    Attributes:
        size_bytes: Its length.
        reason: What sets the limit, and how to raise it.
        danger: Why memory may not carry it; empty if it does.
    """

    size_bytes: int
    reason: str
    danger: str = ""


class MemoryPlan(NamedTuple):
    """What may be held at once.

    Attributes:
        limit: The limit that it follows from.
        largest_packet_bytes: The largest packet that fits.
        received_bytes: What memory alone may hold of received messages.
        in_flight_bytes: What may be with librdkafka.
        kafka_topics: How many Kafka topics may be in use.
    """

    limit: MemoryLimit
    largest_packet_bytes: int
    received_bytes: int
    in_flight_bytes: int
    kafka_topics: int = 0

    def with_more(self, counted_bytes: int, more_bytes: int) -> MemoryPlan:
        """Return what may be held at once where each message takes more than it counts for.

        Args:
            counted_bytes: What the messages count for, of which the most fit.
            more_bytes: How much more each of these takes at most.
        """
        share = counted_bytes / (counted_bytes + more_bytes)
        received_bytes, in_flight_bytes = int(self.received_bytes * share), int(self.in_flight_bytes * share)
        return self._replace(received_bytes=received_bytes, in_flight_bytes=in_flight_bytes)

    def packet_limit(self, wanted_bytes: int | None, largest_record_bytes: int) -> PacketLimit:
        """Return the largest packet to accept.

        Args:
            wanted_bytes: MQTT_MAXIMUM_PACKET_BYTES; None: as much as memory carries.
            largest_record_bytes: What Kafka's client takes at most.
        """
        carried_bytes = self.largest_packet_bytes
        memory = self._memory
        size_bytes = min(wanted_bytes or carried_bytes, largest_record_bytes)
        if size_bytes == largest_record_bytes:
            reason = "message.max.bytes of the Kafka client, which KAFKA_PRODUCER_CONFIG raises"
            if wanted_bytes and wanted_bytes > size_bytes:
                reason += f", below the {wanted_bytes} of MQTT_MAXIMUM_PACKET_BYTES"
        elif wanted_bytes:
            reason = "MQTT_MAXIMUM_PACKET_BYTES"
        else:
            reason = f"what {memory} carries; raise that, or set MQTT_MAXIMUM_PACKET_BYTES"
        if size_bytes <= carried_bytes and self.is_enough:
            return PacketLimit(size_bytes, reason)
        topics_bytes = _cost_of_topics(self.kafka_topics)
        needed_bytes = int((size_bytes * COST_OF_LARGEST + PROCESS_BYTES + topics_bytes) / SAFE_SHARE)
        return PacketLimit(
            size_bytes,
            reason,
            f"packets of up to {size_bytes} bytes are accepted, but {memory} is safe only for those of up to "
            f"{carried_bytes if self.is_enough else 0}: the kernel may kill the worker. Allow it {needed_bytes} bytes, "
            "or lower MQTT_MAXIMUM_PACKET_BYTES",
        )

    @property
    def _memory(self) -> str:
        return f"a memory limit of {self.limit.size_bytes} bytes ({self.limit.source})"

    @property
    def danger_of_topics(self) -> str:
        """Why memory may not carry as many Kafka topics as may be in use; empty if it does."""
        topics_bytes, least_bytes = (
            _cost_of_topics(self.kafka_topics),
            PROCESS_BYTES + COST_OF_LARGEST * SMALLEST_PACKET_BYTES,
        )
        left_bytes = max(0, int(self.limit.size_bytes * SAFE_SHARE) - least_bytes)
        if topics_bytes <= left_bytes:
            return ""
        return (
            f"up to {self.kafka_topics} Kafka topics may be in use, those that routes name and ROUTES_MAX_TOPICS, and "
            f"take {topics_bytes} bytes of memory, but {self._memory} leaves {left_bytes} for them: the kernel may "
            f"kill the worker. Allow it {int((topics_bytes + least_bytes) / SAFE_SHARE)} bytes, or lower "
            "ROUTES_MAX_TOPICS"
        )

    @property
    def is_enough(self) -> bool:
        """Whether the limit carries even the smallest of the largest packets."""
        return self.limit.size_bytes * SAFE_SHARE >= PROCESS_BYTES + COST_OF_LARGEST * SMALLEST_PACKET_BYTES


def plan_for(limit: MemoryLimit, kafka_topics: int = 0) -> MemoryPlan:
    """Divide the memory that a limit allows.

    Args:
        limit: The limit.
        kafka_topics: How many Kafka topics may be in use.
    """
    usable_bytes = int(limit.size_bytes * SAFE_SHARE) - PROCESS_BYTES - _cost_of_topics(kafka_topics)
    largest_bytes = max(SMALLEST_PACKET_BYTES, usable_bytes // COST_OF_LARGEST)
    held_bytes = min(IN_FLIGHT_BYTES, largest_bytes)
    return MemoryPlan(limit, largest_bytes, min(RECEIVED_BYTES, held_bytes), held_bytes, kafka_topics)


def _cost_of_topics(kafka_topics: int) -> int:
    """Return what so many Kafka topics take beyond what the process takes anyway."""
    return KAFKA_TOPIC_BYTES * max(0, kafka_topics - SOME_TOPICS)


def memory_limit(root: Path = Path("/")) -> MemoryLimit:
    """Return the smallest limit in force.

    Args:
        root: Where /proc and /sys are; another one in tests.
    """
    return min(_limits(root))


def _limits(root: Path) -> Iterator[MemoryLimit]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield MemoryLimit(int(pages * MACHINE_SHARE), "half of the machine's memory")
    for name, untouched_bytes in UNTOUCHED_BYTES.items():
        soft_bytes = resource.getrlimit(getattr(resource, name))[0]
        if soft_bytes != resource.RLIM_INFINITY:
            yield MemoryLimit(max(0, soft_bytes - untouched_bytes), f"{name}, what is never touched left out")
    with contextlib.suppress(OSError):  # no Linux, or /proc is not there
        for path in _control_files(root):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                size_bytes = int(path.read_text(encoding="ascii"))
                if size_bytes < NO_LIMIT_BYTES:
                    yield MemoryLimit(size_bytes, f"{path.name} of the control group")


def _control_files(root: Path) -> Iterator[Path]:
    """Iterate over the files that may hold a limit, from the process's own group to the top."""
    groups: dict[str, str] = {}
    for line in _lines(root, "cgroup"):
        number, controllers, group = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            groups["cgroup2" if number == "0" else "cgroup"] = group
    names = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
    for line in _lines(root, "mountinfo"):
        before, _, after = line.partition(" - ")
        top, mount = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield from _upwards(root / mount.lstrip("/"), top, groups.get(kind, "/"), names[kind])


def _lines(root: Path, name: str) -> list[str]:
    """Return the lines of a file in which names are bytes of any kind."""
    return (root / "proc/self" / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _upwards(mount: Path, top: str, group: str, name: str) -> Iterator[Path]:
    """Iterate over the file of a group and of all above it that are mounted; `top` is the group that is the mount."""
    inside = group[len(top) :] if top != "/" and group.startswith(top) else group
    directory = mount / inside.strip("/")
    while directory != mount:
        yield directory / name
        directory = directory.parent
    yield mount / name


def give_memory_back() -> None:
    """Have the C library return what large messages took as soon as it is freed, and keep few heaps (glibc alone).

    By itself it raises the size from which it maps memory to that of the largest piece that was ever freed, and every
    thread of librdkafka and RocksDB keeps a heap with what was freed in it.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE_ALLOCATION_BYTES)
        library.mallopt(ARENA_MAX, ARENAS)


def give_free_memory_back() -> None:
    """Return to the system what is free within the heaps of the C library (glibc alone); not on the event loop.

    What was in flight in an outage lay between what stays. By itself the library returns the end of a heap alone, so
    that each outage would leave some more of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def calm_collector() -> None:
    """Have Python look for cycles rarely, and not among what was imported.

    A message makes none, but thousands of them in flight look like garbage to be: to go through them again and again
    took a third of the processor time of each.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 10)
