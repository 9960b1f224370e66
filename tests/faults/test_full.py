"""A full table, with Kafka away: `block` makes the broker keep the rest, `drop_oldest` gives up the oldest, counted."""

from __future__ import annotations

import json

import pytest

from tests.support.oracle import read, wait_until
from tests.support.system import Bridge, Publisher, wait_for_total
from tools.brokers import Kafka

LIMIT_BYTES = 1_048_576


def counted(bridge: Bridge, name: str) -> float:
    return bridge.total(f"connector_{name}")


def wait_until_steady(bridge: Bridge, name: str) -> float:
    """Wait until a metric has been the same for 20 readings, and return it."""
    seen: list[float] = []

    def steady() -> bool:
        seen.append(counted(bridge, name))
        bridge.assert_balanced()
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    wait_until(steady, f"a steady {name}")
    return seen[-1]


def test_block_leaves_the_rest_with_the_broker_and_everything_arrives_once_in_order(mosquitto, tmp_path, names):
    """P1, P2, P3, P6 and P8: what does not fit is not acknowledged; the reason names the fullest route."""
    kafka = Kafka(tmp_path / "kafka")
    many, few = f"{names.mqtt('many/#')}:many", f"{names.mqtt('few/#')}:few"
    topics = [names.mqtt(f"many/{number}") for number in range(9)] + [names.mqtt("few/0")]
    with (
        Bridge(
            tmp_path / names.client_id,
            mosquitto.port,
            kafka.bootstrap,
            f"{many},{few}",
            undelivered_max_bytes=LIMIT_BYTES,
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):
        publisher.publish_many(topics, 20_000, size_bytes=200)
        wait_until(lambda: bridge.get("/health/ready")[0] == 503, "a worker that is not ready")
        stored = wait_until_steady(bridge, "stored_total")

        assert 1000 < stored < LIMIT_BYTES / 200
        assert counted(bridge, "undelivered_bytes") <= LIMIT_BYTES == counted(bridge, "store_limit_bytes")
        # The rest stays with the broker, as acknowledgements have stopped. (mosquitto 2.0.11 sends a few thousand
        # messages more than the receive maximum allows.)
        assert stored < counted(bridge, "received_total") < 15_000
        reasons = json.loads(bridge.get("/health/ready")[1])["reasons"]
        assert len(reasons) == 1
        assert "the table is full" in reasons[0] and many in reasons[0]
        table = bridge.status_page()["table"]
        assert table["full"] and table["fullest_route"] == many
        assert bridge.get("/health/live")[0] == 200, "a restart would not help"
        log = bridge.log_path.read_text()
        assert log.count("the table is full") == 1, "said, but not with every message"
        assert f"most of it is {many}" in log

        with kafka:
            kafka.create_topic("many", 3)
            kafka.create_topic("few")
            oracle = read(kafka.bootstrap, ["many", "few"], 20_000)

            oracle.assert_each_once_in_order(publisher.sent)
            wait_until(lambda: counted(bridge, "undelivered_messages") == 0, "an empty table")
            wait_until(lambda: "the table has room again" in bridge.log_path.read_text(), "the good news")
            assert bridge.get("/health/ready")[0] == 200
            assert not bridge.status_page()["table"]["full"]
            wait_for_total(bridge, "connector_delivered_total", 20_000)  # the last ones were in memory alone
            assert counted(bridge, "dropped_total") == 0
            bridge.assert_balanced()


def test_block_survives_sigterm_with_the_rest_still_at_the_broker(mosquitto, tmp_path, names):
    """P1 and P10: a stop with a full table loses nothing; what was not acknowledged comes again."""
    kafka = Kafka(tmp_path / "kafka")
    with (
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records",
            stop_budget_sec=2, undelivered_max_bytes=LIMIT_BYTES,
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        publisher.publish_many([names.mqtt("a")], 5_000, size_bytes=400)
        wait_until(lambda: bridge.get("/health/ready")[0] == 503, "a full table")
        bridge.stop()
        assert bridge.exit_status == 0
        with kafka:
            kafka.create_topic("records")
            bridge.start()
            oracle = read(kafka.bootstrap, ["records"], publisher.sent)
            assert (oracle.lost(publisher.sent), oracle.inversions()) == (0, 0)
            wait_until(lambda: counted(bridge, "undelivered_messages") == 0, "an empty table")
            bridge.assert_balanced()


@pytest.mark.parametrize("kafka_was_there", [False, True])
def test_drop_oldest_gives_up_the_oldest_and_counts_them_exactly(kafka_was_there, mosquitto, tmp_path, names):
    """P2, P6 and P8: receiving goes on; the newest arrive in order, received = delivered + dropped."""
    with (
        Kafka(tmp_path / "kafka") as kafka,
        Publisher(mosquitto.port) as publisher,
    ):
        kafka.create_topic("records")
        if not kafka_was_there:
            kafka.stop()
        with Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records",
            undelivered_max_bytes=LIMIT_BYTES, undelivered_when_full="drop_oldest",
        ) as bridge:  # fmt: skip
            if kafka_was_there:
                publisher.publish_many([names.mqtt("a")], 1_000, size_bytes=200)
                wait_until(lambda: counted(bridge, "delivered_total") == 1_000, "1,000 delivered messages")
                kafka.stop()
            publisher.publish_many([names.mqtt("a")], 20_000, size_bytes=200)
            total = 20_000 + 1_000 * kafka_was_there
            wait_until(lambda: counted(bridge, "received_total") == total, "everything to be received")
            wait_until_steady(bridge, "dropped_total")
            assert counted(bridge, "undelivered_bytes") <= LIMIT_BYTES
            wait_for_total(bridge, "connector_in_flight_messages", 0)  # everything was taken, and acknowledged
            assert bridge.get("/health/ready")[0] == 200, "with drop_oldest a full table accepts messages"
            log = bridge.log_path.read_text()
            assert log.count("the oldest messages are dropped") == 1 and "has room again" not in log

            kafka.start()
            wait_until(lambda: counted(bridge, "undelivered_messages") == 0, "an empty table", 90)
            said = lambda: bridge.log_path.read_text().count("the table has room again")  # noqa: E731
            wait_until(lambda: said() == 1, "the good news, and not each time one is dropped")
            delivered = int(counted(bridge, "delivered_total"))
            oracle = read(kafka.bootstrap, ["records"], delivered)
            metrics = bridge.metrics()
            route = f"{names.mqtt('#')}:records"
            assert metrics["connector_dropped_total"] == {(route, "table_full"): total - delivered}
            bridge.assert_balanced()
    assert len(oracle.records) == delivered
    assert (oracle.duplicates(), oracle.inversions()) == (0, 0)
    assert oracle.lost(publisher.sent) == total - delivered
    numbers = oracle.numbers()[names.mqtt("a")]
    newest = LIMIT_BYTES // 1_000  # far fewer than fit
    assert numbers[-newest:] == list(range(total - newest, total)), "the newest arrive, without a gap"


def test_drop_oldest_goes_on_receiving_when_many_lanes_had_much_in_flight(mosquitto, tmp_path, names):
    """P6: copies of what is in flight do not fill the table, so the oldest can always give way."""
    lanes = [f"lane{number}" for number in range(10)]
    mappings = ",".join(f"{names.mqtt(lane)}:{lane}" for lane in lanes)
    topics = [names.mqtt(lane) for lane in lanes]
    with (
        Kafka(tmp_path / "kafka") as kafka,
        Bridge(
            tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, mappings,
            undelivered_max_bytes=10 * LIMIT_BYTES, undelivered_when_full="drop_oldest",
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        for lane in lanes:
            kafka.create_topic(lane)
        publisher.publish_many(topics, 300)
        wait_until(lambda: counted(bridge, "delivered_total") == 300, "300 delivered messages")
        kafka.kill()
        publisher.publish_many(topics, 1_500, size_bytes=30_000)
        wait_until(lambda: counted(bridge, "received_total") == 1_800, "everything to be received")
        assert wait_until_steady(bridge, "dropped_total") > 0
        assert bridge.get("/health/ready")[0] == 200


def test_a_stop_with_a_full_table_keeps_what_was_received_with_qos_0(mosquitto, tmp_path, names):
    """P10: nothing that was received before the stop is lost, though the table has to pass its limit."""
    kafka = Kafka(tmp_path / "kafka")
    bridge = Bridge(
        tmp_path / names.client_id, mosquitto.port, kafka.bootstrap, f"{names.mqtt('#')}:records", mqtt_qos=0,
        undelivered_max_bytes=LIMIT_BYTES,
    )  # fmt: skip
    with bridge, Publisher(mosquitto.port, 0) as publisher:
        publisher.publish_many([names.mqtt("a")], 5_000)
        wait_until(lambda: bridge.get("/health/ready")[0] == 503, "a full table")
        wait_until_steady(bridge, "received_total")
        received = int(counted(bridge, "received_total"))
        bridge.stop()
        assert bridge.exit_status == 0
        with kafka:
            kafka.create_topic("records")
            bridge.start()
            oracle = read(kafka.bootstrap, ["records"], received)
    assert len(oracle.records) == received
    assert (oracle.duplicates(), oracle.inversions()) == (0, 0)
