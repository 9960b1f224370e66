"""Messages that are older than what their Kafka topic keeps: what is counted and logged outlives a start."""

from __future__ import annotations

from tests.support.oracle import wait_until
from tests.support.proxied_protocols import DESCRIBE_CONFIGS, TO_CLIENT
from tests.support.system import Bridge, Publisher


def test_an_outage_longer_than_what_the_topic_keeps_is_warned_of_after_a_start_without_kafka_too(
    mosquitto, proxied_kafka, names, tmp_path
):
    """What the topic keeps was learned while Kafka was there, and is on disk."""
    kafka, proxy = proxied_kafka
    short, arrival = names.kafka("short"), names.kafka("arrival")
    kafka.create_topic(short, 1, **{"retention.ms": "3000"})
    kafka.create_topic(arrival, 1, **{"retention.ms": "3000", "message.timestamp.type": "LogAppendTime"})
    mappings = f"{names.mqtt('short')}:{short},{names.mqtt('arrival')}:{arrival}"
    bridge = Bridge(tmp_path, mosquitto.port, proxy.address, mappings)
    topics = [names.mqtt("short"), names.mqtt("arrival")]
    with Publisher(mosquitto.port) as publisher:
        with bridge:
            publisher.publish_many(topics, 20)
            wait_until(lambda: bridge.total("connector_delivered_total") == 20, "20 deliveries")
            wait_until(lambda: proxy.seen(TO_CLIENT, DESCRIBE_CONFIGS), "what the topics keep")
            proxy.refuse()
            publisher.publish_many(topics, 60)
            wait_until(lambda: bridge.total("connector_undelivered_messages") == 60, "60 stored messages")
            assert bridge.total("connector_retention_exceeded_messages") == 0
        with bridge:
            wait_until(lambda: bridge.total("connector_retention_exceeded_messages") == 30, "30 that outlived it")
            texts = [finding["text"] for finding in bridge.status_page()["findings"]]
            assert any(f"waits for {short}" in text and "keeps records for 3 seconds" in text for text in texts)
            assert not any(f"waits for {arrival}" in text for text in texts)
            assert f"the oldest message that waits for {short}" in bridge.log_path.read_text()
