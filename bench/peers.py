"""The programs of others that Connector is compared with, and which of them are installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from abc import abstractmethod
from pathlib import Path
from typing import IO

from bench.bridges import (
    FILTER,
    SETTLE_SECONDS,
    Bridge,
    Connector,
    ConnectorWithoutLinger,
    ConnectorWithSmallReplay,
)
from bench.load import WARM_UP_MESSAGES
from bench.usage import Usage
from tools.brokers.process import ProcessError

TOOLS = Path(__file__).resolve().parents[1] / ".tools"
TELEGRAF_VERSION = "1.37.2"
TELEGRAF = TOOLS / f"telegraf-{TELEGRAF_VERSION}" / "telegraf"
MQ_BRIDGE_VERSION = "1.2.0"
MQ_BRIDGE = TOOLS / f"mq-bridge-{MQ_BRIDGE_VERSION}"  # an environment of Python's
MQ_BRIDGE_ROUTE = Path(__file__).with_name("mq_bridge_route.py")


class OtherProgram(Bridge):
    """A program of somebody else."""

    def __init__(self, *args: object) -> None:
        """See `Bridge`."""
        super().__init__(*args)  # type: ignore[arg-type]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it, and see that it did not end at once."""
        self.start_again()
        time.sleep(SETTLE_SECONDS)
        for process in self._processes:
            if process.poll() is not None:
                raise ProcessError(f"{self.title} ended: {(self.directory / 'log').read_text()[-1000:]}")

    def start_again(self) -> None:
        """Start it; its log goes on."""
        with (self.directory / "log").open("ab") as log:
            self._processes = self._launch(log)

    def kill(self) -> None:
        """Kill all its processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(20)

    @abstractmethod
    def _launch(self, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        """Start the processes."""

    @property
    def pids(self) -> list[int]:
        """Those of all its processes."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """End it with SIGTERM."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(20)

    def _mosquitto_sub(self) -> list[str]:
        name = f"bench-sub-{self.topic}"
        persistent = ["-c"] if self.qos else []
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.mqtt_port), "-q", str(self.qos)]
        return [*command, "-i", name, *persistent, "-V", "5", "-D", "connect", "receive-maximum", "1000", "-t", FILTER]


class Telegraf(OtherProgram):
    """Telegraf: `mqtt_consumer` to `outputs.kafka`, persistent session, messages tracked until Kafka has them."""

    title = "Telegraf"
    promise = "after Kafka"

    def _launch(self, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        configuration = self.directory / "telegraf.conf"
        largest = f"max_message_bytes = {self.largest_bytes}" if self.largest_bytes else ""
        configuration.write_text(f"""
[agent]
  interval = "1s"
  flush_interval = "100ms"
  metric_batch_size = 5000
  metric_buffer_limit = 1000000
  omit_hostname = true
  quiet = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{self.mqtt_port}"]
  topics = ["{FILTER}"]
  qos = {self.qos}
  client_id = "bench-telegraf"
  persistent_session = {"true" if self.qos else "false"}
  max_undelivered_messages = 10000
  data_format = "value"
  data_type = "string"
[[outputs.kafka]]
  brokers = ["{self.bootstrap}"]
  topic = "{self.topic}"
  routing_tag = "topic"
  required_acks = -1
  compression_codec = 3
  {largest}
  data_format = "template"
  template = "{{{{.Field \\"value\\"}}}}"
""")
        return [subprocess.Popen([TELEGRAF, "--config", configuration], stdout=log, stderr=log)]


class MqBridge(OtherProgram):
    """mq-bridge: a route from `mqtt` to `kafka`, persistent session, acknowledged after Kafka has the batch.

    Its documents have one worker for what must stay in order, and larger batches as the first thing to try. By itself
    it keys a record by an identifier of its own, which would spread each MQTT topic over all partitions.
    """

    title = "mq-bridge"
    promise = "after Kafka"

    def _launch(self, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        configuration = self.directory / "mq-bridge.json"
        configuration.write_text(json.dumps({"routes": {"bench": self._route()}}))
        command = [str(MQ_BRIDGE / "bin" / "python"), "-I", str(MQ_BRIDGE_ROUTE), str(configuration)]
        environment = {**os.environ, "MQB_SOURCE_METADATA": "1"}  # else there is no topic to key by
        return [subprocess.Popen(command, stdout=log, stderr=log, env=environment)]

    def _route(self) -> dict[str, object]:
        mqtt = {
            "url": f"mqtt://127.0.0.1:{self.mqtt_port}",
            "topic": FILTER,
            "qos": self.qos,
            "client_id": "bench-mq-bridge",
            "clean_session": not self.qos,
            "max_inflight": 1000,
            "queue_capacity": 5000,
        }
        options = [["compression.type", "lz4"]]
        options += [["message.max.bytes", str(self.largest_bytes)]] if self.largest_bytes else []
        kafka = {
            "url": self.bootstrap,
            "topic": self.topic,
            "create_topic": False,
            "partition_key": "mqb.src.mqtt_topic",
            "producer_options": options,
        }
        return {"input": {"mqtt": mqtt}, "output": {"kafka": kafka}, "batch_size": 2048}


class Kcat(OtherProgram):
    """`mosquitto_sub | kcat -P`."""

    title = "mosquitto_sub | kcat"
    promise = "at once"
    may_lose = True

    def _launch(self, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        reader = subprocess.Popen(self._mosquitto_sub(), stdout=subprocess.PIPE, stderr=log)
        produce = ["kcat", "-P", "-b", self.bootstrap, "-t", self.topic, "-X", "acks=all", "-z", "lz4"]
        produce += ["-X", f"message.max.bytes={self.largest_bytes}"] if self.largest_bytes else []
        writer = subprocess.Popen(produce, stdin=reader.stdout, stdout=log, stderr=log)
        assert reader.stdout is not None
        reader.stdout.close()
        return [reader, writer]


class MosquittoSub(OtherProgram):
    """`mosquitto_sub` alone, its output thrown away: what receiving costs a C program."""

    title = "mosquitto_sub (floor)"
    promise = "at once"
    writes_to_kafka = False

    def _launch(self, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        command = [*self._mosquitto_sub(), "-C", str(self.messages + WARM_UP_MESSAGES)]
        return [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)]

    def wait(self) -> Usage:
        """Wait until it ended by itself, which it does after the last message; return what it took."""
        process = self._processes.pop()
        _, status, resources = os.wait4(process.pid, 0)
        if status:
            raise ProcessError(f"{self.title} ended with status {status}")
        process.returncode = status
        return Usage(resources.ru_utime + resources.ru_stime, resources.ru_maxrss * 1024)


def missing_programs() -> list[str]:
    """Return the programs that are not installed; `make peers` installs them."""
    found = {
        "mosquitto_sub": shutil.which("mosquitto_sub"),
        "kcat": shutil.which("kcat"),
        "telegraf": TELEGRAF.exists(),
        "mq-bridge": (MQ_BRIDGE / ".complete").exists(),
    }
    return [name for name, where in found.items() if not where]


KINDS: tuple[type[Bridge], ...] = (
    Connector,
    ConnectorWithoutLinger,
    ConnectorWithSmallReplay,
    Telegraf,
    MqBridge,
    Kcat,
    MosquittoSub,
)
