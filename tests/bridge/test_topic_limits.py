"""What Kafka says of its topics' limits, and what becomes of a lane then; a real Kafka behind a proxy."""

from __future__ import annotations

import time

import pytest

from tests.support.oracle import read, wait_until
from tests.support.proxied_protocols import (
    API_VERSIONS,
    DESCRIBE_CONFIGS,
    TO_CLIENT,
    configs_with_error,
    versions_without,
)
from tests.support.system import Bridge, Publisher


@pytest.mark.parametrize("what", ["refused with 35", "not offered"])
def test_messages_flow_at_full_rate_where_kafka_does_not_say_what_its_topics_take(
    what, mosquitto, proxied_kafka, names, tmp_path
):
    """P2 and P5: a record per round trip would take 40 s for these."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    if what == "not offered":
        proxy.on(TO_CLIENT, API_VERSIONS, lambda frame: versions_without(frame, DESCRIBE_CONFIGS), times=None)
    else:
        proxy.on(TO_CLIENT, DESCRIBE_CONFIGS, lambda frame: configs_with_error(frame, 35), times=None)
    proxy.slow(delay_seconds=0.01)
    mapping = f"{names.mqtt('#')}:{names.kafka()}"
    with (
        Bridge(tmp_path, mosquitto.port, proxy.address, mapping, store_after_ms=60_000) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        began = time.monotonic()
        publisher.publish_many([names.mqtt("a")], 2000)
        wait_until(lambda: bridge.total("connector_delivered_total") == 2000, "2,000 deliveries")
        assert time.monotonic() - began < 30
        read(kafka.bootstrap, [names.kafka()], 2000).assert_each_once_in_order(publisher.sent)
        assert "Kafka does not say what its topic" in bridge.log_path.read_text()
