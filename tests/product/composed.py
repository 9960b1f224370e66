"""compose.yaml as the tests read it, and its brokers and Prometheus as processes with its configuration.

There are no images here. What an image would do with the file is done with the same programs as they are installed: the
names of services become 127.0.0.1, their ports free ones, and the directories of the images those of the test.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.product.prometheus_server import Prometheus
from tools.brokers import Kafka, Mosquitto, ProcessError
from tools.brokers.process import HOST, free_port

COMPOSE_GO_VERSION = "2.16.2"
REPOSITORY = Path(__file__).resolve().parents[2]
FILE = REPOSITORY / "compose.yaml"
SUPPORT = REPOSITORY / "image" / "compose"
LOADER = REPOSITORY / ".tools" / f"compose-go-{COMPOSE_GO_VERSION}" / "compose-spec"
RULES_IN_THE_CONTAINER = "/etc/prometheus/prometheus-rule.yaml"
# What the image brings for both, as far as the program that reads it asks: without loggers it gives up.
LOGGING = "Configuration:\n  Loggers:\n    Root:\n      level: WARN\n    Logger: []\n"


@cache
def services() -> dict[str, dict[str, Any]]:
    """Return the services by name."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]


def environment(service: str) -> dict[str, str]:
    """Return the variables of a service."""
    return dict(services()[service]["environment"])


def of_the_image() -> dict[str, str]:
    """Return the variables that the image of Connector presets."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^ENV (.*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    return dict(pair.split("=", 1) for line in lines for pair in line.replace("\\\n", " ").split())


def script(service: str) -> str:
    """Return the shell script that a service runs, as the shell gets it."""
    assert services()[service]["entrypoint"] == ["sh", "-c"]
    (text,) = services()[service]["command"]
    return text.replace("$$", "$")


class ComposedMosquitto(Mosquitto):
    """Mosquitto with the file of the image's volume."""

    def prepare(self) -> None:
        """Write mosquitto.conf, with another port and directory."""
        text = (SUPPORT / "mosquitto.conf").read_text(encoding="utf-8")
        text = text.replace("listener 1883", f"listener {self.port} {HOST}")
        text = text.replace("/mosquitto/data/", f"{self.directory}/")
        # In the container it has its own user from the start.
        self._configuration_path.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))


class ComposedKafka(Kafka):
    """Kafka with the properties that the image makes of the variables, by the program that the image runs for that.

    Attributes:
        internal_port: where the other containers connect.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        """Choose the ports; nothing is started."""
        super().__init__(directory, **options)
        self.internal_port = free_port()

    def prepare(self) -> None:
        """Have the image's program make the properties and format the storage."""
        given, mounted = self.directory / "default", self.directory / "mounted"
        for folder in (given, mounted, self._properties_path.parent):
            folder.mkdir(exist_ok=True)
        (given / "server.properties").write_text("")
        for name in ("log4j2.yaml", "tools-log4j2.yaml"):
            (given / name).write_text(LOGGING)
        folders = ["--default-configs-dir", given, "--mounted-configs-dir", mounted]
        program = [*self._java(), "kafka.docker.KafkaDockerWrapper", "setup", *map(str, folders)]
        done = subprocess.run(
            [*program, "--final-configs-dir", str(self._properties_path.parent)],
            env={"PATH": os.environ["PATH"], **self.variables()}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        # At the next start the storage is there, which the image's script lets pass as well.
        if done.returncode != 0 and "already formatted" not in done.stdout + done.stderr:
            raise ProcessError(f"the variables of compose.yaml are refused:\n{done.stdout}{done.stderr}")

    @property
    def _properties_path(self) -> Path:
        return self.directory / "final" / "server.properties"

    def variables(self) -> dict[str, str]:
        """Return the variables of the service, with the ports and the directory of this process."""
        ports = {"19092": self.internal_port, "9092": self.port, "9093": self._controller_port}
        texts = environment("kafka")
        for name in ("LISTENERS", "ADVERTISED_LISTENERS", "CONTROLLER_QUORUM_VOTERS"):
            text = re.sub(r":(\d+)", lambda found: f":{ports[found[1]]}", texts[f"KAFKA_{name}"])
            texts[f"KAFKA_{name}"] = re.sub(r"(?<=//)(kafka|localhost|)(?=:)|(?<=@)localhost", HOST, text)
        return {**texts, "KAFKA_LOG_DIRS": str(self._data_path)}


class ComposedPrometheus(Prometheus):
    """Prometheus with the file of the service, and the rules that its script makes."""

    def prepare(self) -> None:
        """Write configuration and rules, for one worker at a port."""
        rules = self.directory / "connector-rules.yaml"
        make_rules(rules)
        text = (SUPPORT / "prometheus.yml").read_text(encoding="utf-8")
        text = text.replace("/tmp/connector-rules.yaml", str(rules)).replace("connector:6066", self._targets[0])
        # A test does not wait for a quarter of a minute.
        text = re.sub(r"_interval: 15s", "_interval: 1s", text)
        (self.directory / "prometheus.yml").write_text(text, encoding="utf-8")


def make_rules(target: Path) -> None:
    """Have the first half of Prometheus' script make the file of rules; the second half is Prometheus itself."""
    first, _, second = script("prometheus").partition("&&")
    assert second.strip().startswith("exec prometheus ")
    first = first.replace(RULES_IN_THE_CONTAINER, str(mounted(RULES_IN_THE_CONTAINER, "prometheus")))
    subprocess.run(["sh", "-c", first.replace("/tmp/connector-rules.yaml", str(target))], check=True)


def mounts(service: str) -> Mapping[str, str]:
    """Return what is mounted in a service, by where it is there."""
    entries: Sequence[str] = services()[service].get("volumes", [])
    return {entry.split(":")[1]: entry.split(":")[0] for entry in entries}


def mounted(path: str, service: str) -> Path:
    """Return the file of the repository that a service sees at a path."""
    return REPOSITORY / mounts(service)[path]
