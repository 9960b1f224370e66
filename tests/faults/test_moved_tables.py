"""A table that goes elsewhere (docs/day-two): moved with its backlog, or sent later, when a lost disk came back."""

from __future__ import annotations

import shutil
import threading

from tests.support.oracle import read, wait_until
from tests.support.system import KAFKA_AWAY, Publisher, UnreadyBridge, wait_for_total

WINDOW = 100


def test_a_table_that_is_copied_after_a_stop_goes_on_elsewhere_once_and_in_order(mosquitto, kafka, names, new_bridge):
    """P2 and P3: the whole directory, the same client id; what was published during the move comes from the session."""
    kafka.create_topic(names.kafka())
    old = new_bridge(kafka=KAFKA_AWAY, name="old", mqtt_client_id=names.client_id, stop_budget_sec=1)
    new = new_bridge(name="new", mqtt_client_id=names.client_id)
    with Publisher(mosquitto.port) as publisher:
        with old:
            publisher.publish_many([names.mqtt("a")], 1_000)
            wait_for_total(old, "connector_undelivered_messages", 1_000)
        assert "stopped: 1000 messages wait in the table for the next start" in old.log_path.read_text()
        publisher.publish_many([names.mqtt("a")], 200)
        shutil.copytree(old.settings["DB_PERSIST_PATH"], new.settings["DB_PERSIST_PATH"])
        with new:
            oracle = read(kafka.bootstrap, [names.kafka()], 1_200)
            wait_for_total(new, "connector_undelivered_messages", 0)
            assert new.total("connector_recovered_total") == 1_000
            log = new.log_path.read_text()
            assert "session resumed" in log
            assert "has no record of it" not in log, "the table came with it"
    oracle.assert_each_once_in_order(publisher.sent)


def test_the_table_of_a_lost_node_is_sent_later_and_doubles_only_what_was_not_acknowledged(
    mosquitto, kafka, names, new_bridge
):
    """P1 and P3: a worker without an MQTT broker sends the old table beside the one that has taken up the session."""
    kafka.create_topic(names.kafka())
    lost = new_bridge(kafka=KAFKA_AWAY, name="lost", mqtt_client_id=names.client_id, mqtt_receive_maximum=WINDOW)
    with Publisher(mosquitto.port) as publisher:
        with lost:
            sending = threading.Thread(target=publisher.publish_many, args=([names.mqtt("a")], 5_000, 4_000))
            sending.start()
            wait_until(lambda: lost.total("connector_undelivered_messages") > 1_000, "a thousand stored messages")
            lost.kill()
            sending.join()
        with new_bridge(name="new", mqtt_client_id=names.client_id) as new:
            wait_until(lambda: new.total("connector_delivered_total") > 0, "the queue of the session")
            # It touches neither the session nor the filters, as nobody listens there.
            sender = new_bridge(1, name="sender", kind=UnreadyBridge, mqtt_client_id=names.client_id)
            sender.settings["DB_PERSIST_PATH"] = lost.settings["DB_PERSIST_PATH"]
            with sender:
                wait_for_total(sender, "connector_undelivered_messages", 0)
                sent_again = sender.total("connector_delivered_total")
                assert sent_again == sender.total("connector_recovered_total") > 1_000
            oracle = read(kafka.bootstrap, [names.kafka()], publisher.sent)
            assert new.total("connector_mqtt_connections_total") == 1, "nobody took its session"
            assert new.log_path.read_text().count("but the data directory has no record of it") == 1
    assert oracle.lost(publisher.sent) == 0
    assert oracle.duplicates() <= WINDOW
