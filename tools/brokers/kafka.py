"""Apache Kafka as a child process: the Kafka broker of the tests, and of the demonstration where it exists."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.brokers.process import HOST, Certificates, ProcessError, free_port
from tools.brokers.protocol import KafkaProtocolServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KAFKA_VERSION = "4.1.0"
_REPOSITORY = Path(__file__).resolve().parents[2]
_CLUSTER_ID = "Y29ubmVjdG9yLXRlc3RzMA"
# A test broker lives for seconds: a fast start is worth more than fast code later.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = Console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c: %m%n
"""


def find_jars() -> Path | None:
    """Return the directory with the jars of Apache Kafka, or none where it is not installed."""
    home = os.environ.get("KAFKA_HOME")
    candidates = [Path(home) / "libs"] if home else []
    candidates.append(_REPOSITORY / ".tools" / f"kafka-{KAFKA_VERSION}" / "libs")
    return next((path for path in candidates if any(path.glob("kafka_*.jar"))), None)


def _archive(jars: Path) -> list[str]:
    """Return the option for the archive of classes that `make brokers` made, with which it starts in half the time."""
    path = jars.parent / "kafka.jsa"
    return [f"-XX:SharedArchiveFile={path}"] if path.exists() else []


class ProxiedListener(NamedTuple):
    """A listener of Kafka, and the proxy in front of it that it is advertised as.

    Who begins at the proxy stays behind it; who begins at `Kafka.bootstrap` never meets it.
    """

    port: int
    proxy_port: int


class Kafka(KafkaProtocolServer):
    """One node of Apache Kafka that is broker and controller.

    Attributes:
        tls_port: the port of the second, encrypted listener; none without certificates.
    """

    title = "kafka"

    def __init__(
        self,
        directory: Path,
        *,
        jars: Path | None = None,
        properties: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        acl: bool = False,
        auto_create_topics: bool = False,
        proxied: ProxiedListener | None = None,
        java_options: Sequence[str] = JAVA_OPTIONS,
    ) -> None:
        """Choose the ports; nothing is started.

        Args:
            directory: where configuration, records and log go.
            jars: the directory with the jars; found by itself where none is given.
            properties: lines for server.properties that beat the ones made here.
            certificates: files for a second, encrypted listener.
            acl: whether access rules count; what no rule names stays allowed.
            auto_create_topics: whether a topic comes into being by being used.
            proxied: a further listener, for clients behind a proxy.
            java_options: of the virtual machine.
        """
        super().__init__(directory)
        self.tls_port = free_port() if certificates is not None else None
        self._controller_port = free_port()
        self._jars = jars
        self._properties = dict(properties or {})
        self._certificates = certificates
        self._acl = acl
        self._auto_create_topics = auto_create_topics
        self._proxied = proxied
        self._java_options = java_options

    def command(self) -> Sequence[str]:
        """Return the command line that starts the node."""
        return [*self._java(), "kafka.Kafka", str(self._properties_path)]

    def prepare(self) -> None:
        """Write the configuration, and format the storage at the first start."""
        (self.directory / "log4j2.properties").write_text(_LOG4J)
        properties = self._base_properties() | self._acl_properties() | self._tls_properties()
        properties |= self._proxied_properties(properties) | self._properties
        self._properties_path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        if not (self._data_path / "meta.properties").exists():
            self._format_storage()

    @property
    def _properties_path(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _data_path(self) -> Path:
        return self.directory / "kafka-data"

    def _java(self) -> list[str]:
        java, jars = shutil.which("java"), self._jars or find_jars()
        if java is None or jars is None:
            raise ProcessError(f"Apache Kafka {KAFKA_VERSION} is not installed; `make brokers` installs it")
        logging = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        return [java, *self._java_options, *_archive(jars), logging, "-cp", f"{jars}/*"]

    def _format_storage(self) -> None:
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c"]
        done = subprocess.run([*command, str(self._properties_path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ProcessError(f"kafka could not format its storage:\n{done.stdout}{done.stderr}")

    def _base_properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self._data_path),
            "auto.create.topics.enable": str(self._auto_create_topics).lower(),
            "group.initial.rebalance.delay.ms": "0",
            # A killed node may register again only when its former session has run out.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }

    def _proxied_properties(self, properties: Mapping[str, str]) -> dict[str, str]:
        if self._proxied is None:
            return {}
        port, proxy_port = self._proxied
        return {
            "listeners": f"{properties['listeners']},PROXIED://{HOST}:{port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap},PROXIED://{HOST}:{proxy_port}",
            "listener.security.protocol.map": f"{properties['listener.security.protocol.map']},PROXIED:PLAINTEXT",
        }

    def _acl_properties(self) -> dict[str, str]:
        if not self._acl:
            return {}
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }

    def _tls_properties(self) -> dict[str, str]:
        if self._certificates is None:
            return {}
        keystore = self.directory / "keystore.pem"
        keystore.write_bytes(_keystore(self._certificates))
        keystore.chmod(0o600)
        return {
            "listeners": f"{self._base_properties()['listeners']},SSL://{HOST}:{self.tls_port}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._certificates.ca_file),
        }


def _keystore(certificates: Certificates) -> bytes:
    """Return key and chain as Kafka wants them: in one file, the key in PKCS#8."""
    # Here and not above: who runs the demonstration needs neither certificates nor this package.
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = serialization.load_pem_private_key(certificates.key_file.read_bytes(), password=None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pkcs8 + certificates.certificate_file.read_bytes()
