"""MQTT brokers of other families than Mosquitto: HiveMQ and mochi-mqtt; `make brokers` gets them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from tools.brokers import ProcessError, ServerProcess
from tools.brokers.process import HOST

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
HIVEMQ_PATH = TOOLS / "hivemq-2025.5"
MOCHI_PATH = TOOLS / "mochi-2.7.9"
# The queue is without a limit that a test would reach; nothing is reported to the makers.
HIVEMQ_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<hivemq>
  <listeners><tcp-listener><port>{port}</port><bind-address>{host}</bind-address></tcp-listener></listeners>
  <mqtt>
    <queued-messages><max-queue-size>1000000</max-queue-size></queued-messages>
    <receive-maximum><server-receive-maximum>65535</server-receive-maximum></receive-maximum>
  </mqtt>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
  <persistence><mode>{persistence}</mode></persistence>
</hivemq>
"""


class OtherBroker(ServerProcess):
    """An MQTT broker that keeps its sessions in memory only, unless it says otherwise.

    Attributes:
        resumes_under_load: What is published in the moments in which a client takes its session up again is neither
            lost, nor sent before what the session has.
    """

    resumes_under_load: ClassVar[bool]


class HiveMQ(OtherBroker):
    """HiveMQ CE: in Java; gives each message the lowest packet identifier that is free."""

    title = "hivemq"
    resumes_under_load = True

    def __init__(self, directory: Path, *, keeps_sessions: bool = False, window_messages: int = 50) -> None:
        """Choose the port.

        Args:
            directory: Where configuration, sessions and log go.
            keeps_sessions: Sessions are on disk, and outlive a stop in order.
            window_messages: The most that a client leaves unacknowledged, whatever its receive maximum.
        """
        super().__init__(directory)
        self._persistence = "file" if keeps_sessions else "in-memory"
        self._window_messages = window_messages

    def command(self) -> Sequence[str]:
        """Return the command line, or raise where HiveMQ is not installed."""
        java = shutil.which("java")
        if java is None or not (HIVEMQ_PATH / ".complete").exists():
            raise ProcessError("HiveMQ is not installed; `make brokers` installs it")
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dwindow={self._window_messages}"]
        classes = f"{HIVEMQ_PATH / 'classes'}:{HIVEMQ_PATH / 'libs'}/*"
        return [java, *options, "-cp", classes, "Broker", str(self.directory), str(self.directory / "data")]

    def prepare(self) -> None:
        """Write config.xml."""
        (self.directory / "data").mkdir(exist_ok=True)
        configuration = HIVEMQ_CONFIGURATION.format(port=self.port, host=HOST, persistence=self._persistence)
        (self.directory / "config.xml").write_text(configuration)


class Mochi(OtherBroker):
    """mochi-mqtt: in Go; sends what is not acknowledged all at once, whatever receive maximum the client has."""

    title = "mochi"
    resumes_under_load = False

    def command(self) -> Sequence[str]:
        """Return the command line; where it is not built, there is no Go that could."""
        if not (MOCHI_PATH / ".complete").exists():
            pytest.skip("mochi-mqtt is not built; `make brokers` builds it where there is Go 1.21 or later")
        return [str(MOCHI_PATH / "mochi"), f"{HOST}:{self.port}"]
