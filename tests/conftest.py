"""What all tests share: one of each real broker, names of their own, and guards against leftovers."""

from __future__ import annotations

import gc
import itertools
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trustme
from hypothesis.configuration import set_hypothesis_home_dir

from clients.brokers import Kafka, Mosquitto

# First, as it changes how the modules of the tests are loaded; pytest finds the hook here.
from tests.support.failure_report import pytest_runtest_makereport  # noqa: F401
from tests.support.fault_proxy import FaultProxy, kafka_behind_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

_THREADS_LIMIT_SECONDS = 5.0
# pytest writes into the first at each phase of a test.
_CHANGING_VARIABLES = {"PYTEST_CURRENT_TEST"}
_numbers = itertools.count(1)

# Of its own files Hypothesis keeps a cache only, which goes where pytest has its.
set_hypothesis_home_dir(Path(__file__).parents[1] / ".pytest_cache" / "hypothesis")
# The same examples in each run, as a test must not fail by chance. `--hypothesis-profile=long` looks for new ones.
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "long", hypothesis.settings.get_profile("steady"), derandomize=False, max_examples=3000, stateful_step_count=100
)
hypothesis.settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what is too long for every run."""
    parser.addoption("--outage-seconds", type=int, default=40, help="how long Kafka is away in the longest outage")


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
def without_collector() -> Iterator[None]:
    """Have Python free only what nobody refers to; the worker's collector of cycles acts rarely."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


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


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Return a Mosquitto that is running; who stops it starts it again."""
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_and_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, FaultProxy]]:
    """Return a Kafka, and the proxy in front of its second listener; for `kafka` and `proxied_kafka`."""
    with kafka_behind_proxy(tmp_path_factory.mktemp("kafka")) as (broker, proxy):
        yield broker, proxy


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


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """Return names that are made from the name of the test."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    unique = f"{readable}-{next(_numbers)}"
    return Names(prefix=unique, client_id=unique)


@pytest.fixture(autouse=True)
def environment_is_left_as_found() -> Iterator[None]:
    """Fail a test that leaves environment variables changed, and change them back for the next one."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed -= _CHANGING_VARIABLES
    for name in changed:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    if changed:
        pytest.fail(f"the test left environment variables changed: {sorted(changed)}")


@pytest.fixture(autouse=True)
def threads_are_ended() -> Iterator[None]:
    """Fail a test that leaves threads running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _THREADS_LIMIT_SECONDS
    while left := [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"the test left threads running: {[thread.name for thread in left]}")
        left[0].join(0.1)
