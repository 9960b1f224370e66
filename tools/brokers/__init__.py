"""Real brokers as child processes, used by the tests and by the demonstration."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tools.brokers.embedded import Amqtt, Tansu
from tools.brokers.kafka import Kafka, ProxiedListener, find_jars
from tools.brokers.mosquitto import Mosquitto, find_mosquitto
from tools.brokers.process import Certificates, ProcessError, ServerProcess, free_port
from tools.brokers.protocol import KafkaProtocolServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Amqtt",
    "Certificates",
    "Kafka",
    "KafkaProtocolServer",
    "Mosquitto",
    "ProcessError",
    "ProxiedListener",
    "ServerProcess",
    "Tansu",
    "free_port",
    "kafka_broker",
    "mqtt_broker",
]


def mqtt_broker(directory: Path) -> Mosquitto | Amqtt:
    """Return the best MQTT broker that this machine has, not started."""
    return Amqtt(directory) if _embedded_wanted() or find_mosquitto() is None else Mosquitto(directory)


def kafka_broker(directory: Path) -> Kafka | Tansu:
    """Return the best Kafka broker that this machine has, not started."""
    installed = shutil.which("java") is not None and find_jars() is not None
    return Kafka(directory) if installed and not _embedded_wanted() else Tansu(directory)


def _embedded_wanted() -> bool:
    """Tell whether the environment asks for the brokers that come as Python packages."""
    return os.environ.get("CONNECTOR_EMBEDDED", "0") not in {"", "0"}
