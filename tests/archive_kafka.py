"""Makes the archive of classes with which Kafka starts in half the time: `python tests/archive_kafka.py ARCHIVE`.

The Java machine writes it when a broker ends that was started once. Where it does not fit, a start takes longer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from clients.brokers import Kafka
from clients.brokers.kafka import JAVA_OPTIONS

ARCHIVE = Path(sys.argv[1]).absolute()

with tempfile.TemporaryDirectory(prefix="connector-kafka-") as directory:
    kafka = Kafka(Path(directory), java_options=[*JAVA_OPTIONS, f"-XX:ArchiveClassesAtExit={ARCHIVE}"])
    with kafka:
        kafka.create_topic("archived")
if not ARCHIVE.exists():
    print(f"{ARCHIVE.name} was not written; Kafka starts without it", file=sys.stderr)
