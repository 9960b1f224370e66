"""Messages that are older than what their Kafka topic keeps: what is counted and logged outlives a start."""

from __future__ import annotations

import time

from tests.bridge.test_sessions import wait_for_a_direct_lane
from tests.support.oracle import wait_until
from tests.support.system import Bridge, Publisher

KEPT_MS = 3000


def test_an_outage_longer_than_what_the_topic_keeps_is_warned_of_after_a_start_without_kafka_too(
    mosquitto, proxied_kafka, names, tmp_path
):
    """What the topic keeps was learned while Kafka was there, and is on disk."""
    kafka, proxy = proxied_kafka
    short, arrival = names.kafka("short"), names.kafka("arrival")
    kafka.create_topic(short, 1, **{"retention.ms": KEPT_MS})
    kafka.create_topic(arrival, 1, **{"retention.ms": KEPT_MS, "message.timestamp.type": "LogAppendTime"})
    mappings = f"{names.mqtt('short')}:{short},{names.mqtt('arrival')}:{arrival}"
    bridge = Bridge(tmp_path, mosquitto.port, proxy.address, mappings)
    topics = [names.mqtt("short"), names.mqtt("arrival")]
    with Publisher(mosquitto.port) as publisher:
        with bridge:
            # Delivered without a way by the disk, in batches: what the topics are like has been learned.
            for topic in topics:
                wait_for_a_direct_lane(bridge, publisher, topic)
            proxy.refuse()
            began = time.monotonic()
            publisher.publish_many(topics, 60)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 60, "60 stored messages")
            exceeded = bridge.total("connector_retention_exceeded_messages")
            assert exceeded == 0 or time.monotonic() - began > KEPT_MS / 1000
        with bridge:
            wait_until(lambda: bridge.total("connector_retention_exceeded_messages") == 30, "30 that outlived it")
            texts = [finding["text"] for finding in bridge.status_page()["findings"]]
            assert any(f"waits for {short}" in text and "keeps records for 3 seconds" in text for text in texts)
            assert not any(f"waits for {arrival}" in text for text in texts)
            assert f"the oldest message that waits for {short}" in bridge.log_path.read_text()
