"""What pytest finds here for all tests: fixtures, guards, marks, options, and how Hypothesis draws its examples."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

# First, as it changes how the modules of the tests are loaded; pytest finds the hook here.
from tests.support.failure_report import pytest_runtest_makereport  # noqa: F401
from tests.support.fixtures import (  # noqa: F401
    certificates,
    kafka,
    kafka_and_proxy,
    mosquitto,
    names,
    new_bridge,
    proxied_kafka,
    without_collector,
)
from tests.support.guards import environment_is_left_as_found, no_server_is_started, threads_are_ended  # noqa: F401
from tests.support.markers import pytest_collection_modifyitems  # noqa: F401

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
