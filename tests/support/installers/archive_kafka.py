"""Makes the archive of classes with which Kafka starts in half the time.

    python -m tests.support.installers.archive_kafka ARCHIVE

The Java machine writes it when a broker ends that was started once. Where it does not fit, a start takes longer.
It gets its name when it is whole: `tools.brokers` uses one that is there, and a Java machine cannot use the one that
it writes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.brokers import Kafka
from tools.brokers.kafka import JAVA_OPTIONS

ARCHIVE = Path(sys.argv[1]).absolute()
UNFINISHED = ARCHIVE.with_name(f"{ARCHIVE.name}.new")

ARCHIVE.unlink(missing_ok=True)

with tempfile.TemporaryDirectory(prefix="connector-kafka-") as directory:
    kafka = Kafka(Path(directory), java_options=[*JAVA_OPTIONS, f"-XX:ArchiveClassesAtExit={UNFINISHED}"])
    with kafka:
        kafka.create_topic("archived")
if UNFINISHED.exists():
    UNFINISHED.rename(ARCHIVE)
else:
    print(f"{ARCHIVE.name} was not written; Kafka starts without it", file=sys.stderr)
