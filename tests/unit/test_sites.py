"""What tells the workers of many sites apart: SITE in the log, the metrics and what Kafka is told; without it nothing.

That Prometheus and Kafka tell them apart is in `product/test_sites.py`, the status page in `bridge/test_page.py`.
"""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from app.errors import SettingsError
from app.kafka.cluster import Cluster, Partition
from app.kafka.producer import KafkaProducer
from app.kafka.quotas import LOGGED_MS
from app.kafka.visit import KafkaVisit
from app.lines import JsonFormatter, LineFormatter, last_word
from app.settings import load_settings, wanted_site
from app.settings.worker_names import LONGEST_KAFKA_CLIENT_ID_CHARACTERS
from tests.support.app_settings import app_settings
from tests.unit.test_logs import events, record_of

REQUIRED = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "connector-0",
    "KAFKA_BROKER": "127.0.0.1:1",
    "TOPIC_LIST": "a:a",
}


def load(**changes):
    return load_settings({**REQUIRED, **changes})


def client_id(**changes):
    return load(**changes).kafka_configuration()["client.id"]


# ---- the setting


@pytest.mark.parametrize("site", ["o", "oslo-1", "Oslo_1.north", "7", "x" * 63])
def test_a_site_has_letters_digits_dots_and_dashes(site):
    settings = load(SITE=site)
    assert (settings.site, settings.worker_name) == (site, f"{site}.connector-0")


@pytest.mark.parametrize(
    "site", ["x" * 64, "oslo 1", "oslo/1", "ol\u00f3", "a\nb", "[oslo]", "%(message)s", "{oslo}", " oslo", "oslo\n"]
)
def test_another_site_is_refused_with_what_is_allowed(site):
    with pytest.raises(SettingsError) as refused:
        load(SITE=site)
    [problem] = refused.value.problems
    assert problem.startswith("SITE: must have 1 to 63 of the characters a-z, A-Z, 0-9, '.', '_' and '-', not ")


@pytest.mark.parametrize("changes", [{}, {"SITE": ""}])
def test_without_a_site_the_worker_has_the_name_of_its_mqtt_client(changes):
    settings = load(**changes)
    assert (settings.site, settings.worker_name) == (None, "connector-0")


# ---- Kafka


def test_kafka_is_told_site_and_mqtt_client_id():
    assert client_id() == "connector-0"
    assert client_id(SITE="oslo-1") == "oslo-1.connector-0"
    assert client_id(SITE="oslo-1", KAFKA_PRODUCER_CONFIG='{"client.id": "x"}') == "x", "who sets it has it"


def test_a_name_for_kafka_has_legal_characters_and_an_end():
    """A quota names it, a broker writes it into its log, and metrics of the broker have it in their names."""
    assert client_id(MQTT_CLIENT_ID="Werk S\u00fcd/1", SITE="oslo") == "oslo.Werk_S_d_1"
    longest = client_id(MQTT_CLIENT_ID="x" * 60_000)
    assert longest == "x" * LONGEST_KAFKA_CLIENT_ID_CHARACTERS


def test_each_client_that_kafka_sees_has_the_same_name(monkeypatch):
    """The producer, the one that asks about topics, and that of `check`: else a quota or a log would miss one."""
    names = []

    def noted(configuration):
        names.append(configuration["client.id"])
        return SimpleNamespace()

    for place in ("app.kafka.producer.Producer", "app.kafka.visit.Producer", "app.kafka.topic_limits.AdminClient"):
        monkeypatch.setattr(place, noted)
    configuration = load(SITE="oslo-1").kafka_configuration()
    producer = KafkaProducer(configuration)
    producer.open()
    KafkaVisit(configuration)
    assert names == ["oslo-1.connector-0"] * 3


# ---- the log


def test_each_line_of_the_log_names_the_site_after_the_time():
    line = LineFormatter(site="oslo-1").format(record_of("it is full"))
    assert line.split(" ", 2)[2] == "[oslo-1] WARNING app.x: it is full"
    [event] = events(JsonFormatter(site="oslo-1").format(record_of("it is full")))
    assert event["site"] == "oslo-1"


def test_without_a_site_a_line_is_as_it_was():
    line = LineFormatter(site=None).format(record_of("it is full"))
    assert line.split(" ", 2)[2] == "WARNING app.x: it is full"
    [event] = events(JsonFormatter(site=None).format(record_of("it is full")))
    assert list(event) == ["time", "level", "logger", "message"]


def test_why_the_worker_ends_names_the_site_too():
    assert last_word("no", as_json=False, site="oslo-1") == "connector [oslo-1]: no"
    assert json.loads(last_word("no", as_json=True, site="oslo-1"))["site"] == "oslo-1"
    assert last_word("no", as_json=False) == "connector: no"
    assert "site" not in json.loads(last_word("no", as_json=True))


def test_the_report_of_wrong_settings_names_the_site_if_it_is_one(monkeypatch):
    monkeypatch.setenv("RUN_MODE", "PRODUCTION")
    for site, shown in (("oslo-1", "oslo-1"), ("oslo 1", None), ("", None)):
        monkeypatch.setenv("SITE", site)
        assert wanted_site() == shown


# ---- the metrics


def test_the_site_is_a_label_of_the_build_and_no_label_without():
    with app_settings():
        from app.pages.registration import build_information  # noqa: PLC0415, the import reads the settings
    assert build_information("oslo-1")["site"] == "oslo-1"
    assert set(build_information(None)) == {"version", "format"}


# ---- quotas


def throttled(cluster, seconds, node=1):
    cluster.quotas.note(SimpleNamespace(broker_name="kafka:9092/1", broker_id=node, throttle_time=seconds))


def test_a_lane_that_waits_for_a_quota_says_so_and_not_that_a_node_is_silent():
    cluster = Cluster()
    cluster.note_statistics(
        '{"brokers": {"kafka:9092/1": {"nodeid": 1, "nodename": "kafka:9092", "source": "learned", "state": "UP", '
        '"rxidle": 9000000, "waitresp_cnt": 2}}, "topics": {}}'
    )
    led = {0: Partition(1, (1,), 1)}
    assert "has not answered for 9 s" in cluster.why_waiting("records", led, 1)
    throttled(cluster, 8.4)
    waits = "node 1 (kafka:9092) throttles Connector for 8 s, as a quota of Kafka's is exceeded"
    assert cluster.why_waiting("records", led, 1) == waits
    throttled(cluster, 0.0)
    assert "has not answered for 9 s" in cluster.why_waiting("records", led, 1)


def test_a_quota_is_in_the_log_once_a_minute_and_not_for_a_moment(caplog):
    caplog.set_level(logging.INFO)
    cluster = Cluster()
    throttled(cluster, (LOGGED_MS - 1) / 1000)
    assert not caplog.records
    for seconds in (1.0, 9.2, 9.4):
        throttled(cluster, seconds)
    [record] = caplog.records
    assert record.getMessage().startswith("Kafka's node 1 throttles Connector for 1 s: a quota of Kafka's")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 2.0**40])
def test_whatever_time_and_node_kafka_names_it_costs_nothing(seconds):
    cluster = Cluster()
    for node in range(1000):
        throttled(cluster, seconds, node=node)
    assert len(cluster.quotas._throttled) <= 200
    assert cluster.quotas.throttled_seconds(999) in {0.0, (2**31 - 1) / 1000}
