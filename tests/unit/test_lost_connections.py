"""Lost connections to Kafka are counted from librdkafka's statistics, whose form these tests have from librdkafka."""

from __future__ import annotations

import json

import pytest

from app.kafka.cluster import Cluster

NOW_SECONDS = 1_000.0


def told(now_seconds, *, prefix="", **nodes):
    """Return statistics in which nodes are up for so many seconds; None: not connected."""
    brokers = {
        f"host:{name}": {
            "name": name, "nodeid": -1 if name == "bootstrap" else int(name[1:]), "nodename": f"{prefix}host:{name}",
            "source": "learned", "state": "UP" if seconds is not None else "TRY_CONNECT",
            "stateage": int((seconds or 0) * 1e6), "outbuf_cnt": 0,
        }
        for name, seconds in nodes.items()
    }  # fmt: skip
    return json.dumps({"name": "x", "client_id": "c", "type": "producer", "ts": int(now_seconds * 1e6), "time": 1,
                       "brokers": brokers, "topics": {}})  # fmt: skip


@pytest.mark.parametrize(
    ("then", "lost"),
    [
        ({"n1": 6.001, "n2": 6.0}, 0),
        ({"n1": 6.0, "n2": None}, 1),
        ({"n1": 6.0}, 1),
        ({"n1": 2.0, "n2": 6.0}, 1),
        ({"n1": None, "n2": 3.0}, 2),
        ({"n1": 6.0, "n2": 6.0, "n3": 1.0}, 0),
    ],
    ids=["none", "one is down", "one is gone", "one came again meanwhile", "both", "a new one"],
)
def test_a_connection_that_is_not_the_one_of_before_was_lost(then, lost):
    cluster = Cluster()
    cluster.note_statistics(told(NOW_SECONDS, n1=1.0, n2=1.0))
    assert cluster.lost.total == 0
    cluster.note_statistics(told(NOW_SECONDS + 5, **then))
    assert cluster.lost.total == lost
    cluster.note_statistics(told(NOW_SECONDS + 10, **{name: s if s is None else s + 5 for name, s in then.items()}))
    assert cluster.lost.total == lost, "once"


def test_the_connection_that_asks_where_kafka_is_does_not_count():
    cluster = Cluster()
    cluster.note_statistics(told(NOW_SECONDS, bootstrap=1.0))
    cluster.note_statistics(told(NOW_SECONDS + 5, n1=1.0))
    assert cluster.lost.total == 0


@pytest.mark.parametrize("text", ["", "{}", '"ts": 99999999999999999999, "time"', '{"brokers": {"a": {"nodeid": 1}}}'])
def test_what_is_no_statistics_is_no_loss(text):
    cluster = Cluster()
    cluster.note_statistics(text)
    assert cluster.lost.total == 0
