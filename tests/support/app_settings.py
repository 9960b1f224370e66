"""Settings that are enough to import the app into the process of a test; they are read when it is imported first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ENOUGH_TO_LOAD = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "in-process",
    "KAFKA_BROKER": "localhost",
    "TOPIC_LIST": "a:alpha",
}


@contextmanager
def app_settings() -> Iterator[None]:
    """Have them in the environment while the app is imported."""
    with pytest.MonkeyPatch.context() as environment:
        for variable, setting in ENOUGH_TO_LOAD.items():
            environment.setenv(variable, setting)
        yield
