"""Topics as long as MQTT allows, with routes that repeat them in headers and keys."""

from __future__ import annotations

import json

from tests.bridge.test_reload import Routes
from tests.support.oracle import read
from tests.support.scripted_broker import PUBACK, ScriptedBroker, publish_packet
from tests.support.system import Bridge

LONGEST_BYTES, MESSAGES = 65_535, 20
REPEATED = {"first": "{1}", "twice": "{topic}{topic}"} | {f"h{number}": "{topic}" * 4 for number in range(14)}


def bridge_of_routes(tmp_path, names, port: int, kafka: str, **settings) -> Bridge:
    """Return a bridge with a route that repeats topics and one that does not, not started."""
    routes = Routes(tmp_path / "routes", names)
    long = {"name": "long", "from": names.mqtt("long/#"), "to": names.kafka("long"), "headers": REPEATED}
    short = {"name": "short", "from": names.mqtt("short"), "to": names.kafka("short")}
    routes.write_text(json.dumps({"routes": [long, short]}))
    given = {"topic_list": "", "wildcard_topic_list": "", "routes_file": routes.path, **settings}
    return Bridge(tmp_path / names.client_id, port, kafka, "", **given)


def send(broker: ScriptedBroker, names) -> list[bytes]:
    """Send messages of the longest topics, and a short one; return the topics of the long ones."""
    topics = [names.mqtt(f"long/{number}/").ljust(LONGEST_BYTES, "x") for number in range(MESSAGES)]
    packets = [publish_packet(topic, b"x", 1, number, version=5) for number, topic in enumerate(topics, 1)]
    broker.send(*packets, publish_packet(names.mqtt("short"), b"short", 1, MESSAGES + 1, version=5))
    broker.wait_for(PUBACK, MESSAGES + 1)
    return [topic.encode() for topic in topics]


def test_a_route_that_repeats_the_longest_topics_delivers_them_and_holds_up_no_other(kafka, names, tmp_path):
    """P5, P6 and P8: 4 MB became of each message, which Kafka refused; now it has the headers that fit."""
    for topic in ("long", "short"):
        kafka.create_topic(names.kafka(topic))
    with ScriptedBroker() as broker, bridge_of_routes(tmp_path, names, broker.port, kafka.bootstrap) as bridge:
        broker.wait_for_subscriptions(2)
        topics = send(broker, names)
        records = read(kafka.bootstrap, [names.kafka("long")], MESSAGES).records
        assert bridge.total("connector_properties_left_out_total") == MESSAGES
        assert bridge.total("connector_dead_lettered_total") == 0
        bridge.assert_balanced()
    assert [record.headers["mqtt-topic"] for record in records] == [record.key for record in records] == topics
    for record in records:
        assert record.headers["connector-left-out"] == b"14"
        assert record.headers["first"] == names.mqtt("long").split("/")[0].encode()
        assert record.headers["twice"] == 2 * record.key


def test_what_a_route_makes_of_long_topics_is_stored_or_dropped_and_holds_up_no_acknowledgement(names, tmp_path):
    """P5: they passed as small ones; each was larger than the table, and what came later waited for Kafka behind it."""
    settings = {"undelivered_max_bytes": 3_000_000, "undelivered_when_full": "drop_oldest"}
    with (
        ScriptedBroker() as broker,
        bridge_of_routes(tmp_path, names, broker.port, "127.0.0.1:9", **settings) as bridge,
    ):
        broker.wait_for_subscriptions(2)
        send(broker, names)
        assert bridge.total("connector_undelivered_messages") + bridge.total("connector_dropped_total") == MESSAGES + 1
        bridge.assert_balanced()
