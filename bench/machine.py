"""When and on what is measured: the date, the machine's cores, and the versions of all programs."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Sequence

import confluent_kafka

from bench.peers import MQ_BRIDGE_VERSION, TELEGRAF_VERSION, missing_programs
from tools.brokers.kafka import KAFKA_VERSION
from tools.brokers.mosquitto import find_mosquitto

NONE = "none"


def about() -> dict[str, str | int]:
    """Return what the report says above its tables; a program that is not installed has the version `none`."""
    missing = missing_programs()
    return {
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        "mosquitto": _version([find_mosquitto() or "mosquitto", "-h"]),
        "Kafka": KAFKA_VERSION,
        "Telegraf": TELEGRAF_VERSION if "telegraf" not in missing else NONE,
        "mq-bridge": MQ_BRIDGE_VERSION if "mq-bridge" not in missing else NONE,
        "kcat": _version(["kcat", "-V"]),
        "librdkafka": confluent_kafka.libversion()[0],
    }


def _version(command: Sequence[str]) -> str:
    """Return what a program says of itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return NONE
    found = re.search(r"version (\d+(?:\.\d+)+)", done.stdout + done.stderr, re.IGNORECASE)
    return found[1] if found else NONE
