"""The fixtures that tests share: real brokers, certificates, names of a test's own, and bridges between them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.fault_proxy import FaultProxy, kafka_behind_proxy
from tests.support.guards import threads_that_last
from tests.support.system import Bridge
from tools.brokers import Kafka, Mosquitto

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Names:
    """Names that no other test uses, on brokers that all tests share.

    Attributes:
        prefix: the beginning of the test's MQTT topics, without a slash at its end.
        client_id: an MQTT client identifier.
    """

    prefix: str
    client_id: str

    def mqtt(self, levels: str) -> str:
        """Return an MQTT topic, or a filter, under the prefix."""
        return f"{self.prefix}/{levels}"

    def kafka(self, name: str = "records") -> str:
        """Return the name of a Kafka topic."""
        return f"{self.prefix}.{name}"


@dataclass(frozen=True)
class CertificateFiles:
    """The files of a server on 127.0.0.1, and of the authority that vouches for it."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """Return names that are made from the name of the test."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    unique = f"{readable}-{next(_numbers)}"
    return Names(prefix=unique, client_id=unique)


@pytest.fixture
def new_bridge(request: pytest.FixtureRequest, names: Names, tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    """Return a function that makes bridges, which are not started; what runs at the end of the test is stopped.

    A test that passed is failed if the accounts of a bridge that still runs do not balance. The function takes:

        mqtt: a broker, or its port; the Mosquitto that all tests share if it is left out.
        kafka: a Kafka, or its address; the Kafka that all tests share if it is left out.
        mappings: all below the test's prefix, to `names.kafka()`, if they are left out.
        kind: a subclass of `Bridge`.
        name: another one for each worker of a test that has several at once. Bridges of one name have one data
            directory and one MQTT session, as a worker has that is started again.
        settings: by the names of the variables, in small letters.
    """
    made: list[Bridge] = []

    def make(
        mqtt: object = None,
        kafka: object = None,
        mappings: str = "",
        kind: type[Bridge] = Bridge,
        name: str = "",
        **settings: object,
    ) -> Bridge:
        mqtt = request.getfixturevalue("mosquitto") if mqtt is None else mqtt
        kafka = request.getfixturevalue("kafka") if kafka is None else kafka
        directory = tmp_path / f"{names.client_id}{name}"
        port = mqtt if isinstance(mqtt, int) else mqtt.port
        address = kafka if isinstance(kafka, str) else kafka.bootstrap
        bridge = kind(directory, port, address, mappings or f"{names.mqtt('#')}:{names.kafka()}", **settings)
        made.append(bridge)
        return bridge

    with contextlib.ExitStack() as stack:
        yield make
        for bridge in made:
            stack.callback(bridge.stop)
            if bridge.running and bridge.ready():
                bridge.assert_balanced()


# ---- the brokers that all tests share


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a Mosquitto that is running; who stops it starts it again."""
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_and_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, FaultProxy]]:
    """Return a Kafka, and the proxy in front of its second listener; for `kafka` and `proxied_kafka`."""
    with contextlib.ExitStack() as stack:
        with threads_that_last():
            made = stack.enter_context(kafka_behind_proxy(tmp_path_factory.mktemp("kafka")))
        yield made


@pytest.fixture(scope="session")
def kafka(kafka_and_proxy: tuple[Kafka, FaultProxy]) -> Kafka:
    """Return a Kafka that is running; who stops it starts it again."""
    return kafka_and_proxy[0]


@pytest.fixture
def proxied_kafka(kafka_and_proxy: tuple[Kafka, FaultProxy]) -> Iterator[tuple[Kafka, FaultProxy]]:
    """Return that Kafka, and a proxy through which it can be reached as well, and which has seen nothing yet."""
    broker, proxy = kafka_and_proxy
    proxy.forget()
    yield broker, proxy
    proxy.forget()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """Return certificates for brokers with TLS."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    files = CertificateFiles(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority.cert_pem.write_to_path(files.ca_file)
    for number, blob in enumerate(server.cert_chain_pems):
        blob.write_to_path(files.certificate_file, append=number > 0)
    server.private_key_pem.write_to_path(files.key_file)
    return files


# ---- the process of the test


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Have Python free only what nobody refers to; the worker's collector of cycles acts rarely."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
