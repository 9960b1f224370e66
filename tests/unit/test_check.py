"""The command `check`: how findings are made of what was answered, and how they are written."""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.check import kafka, machine, mqtt, output, tls, topics
from app.check.findings import Finding, Report, Step
from app.check.network import Place
from app.check.offline import counted, never_first
from app.kafka.cluster import Partition
from app.kafka.visit import RIGHT, SIGN_IN, SILENT, TLS, Node, Refusal, Topic, _nodes_in
from app.mqtt.visit import Answered, Visiting, visitor_id
from app.routes import Route, Template, has_wildcard
from app.secret_forms import known
from tests.support.app_settings import app_settings
from tests.unit.test_settings import load

with app_settings():
    from app.check import disk

PLACE = Place("broker.example.com", 8883, "MQTT_BROKER_URL")
VISITING = Visiting("broker.example.com", 8883, "bridge-check-1", True, 30, 1000, "somebody", "pw")
GIBIBYTE = 1024**3
REPOSITORY = Path(__file__).resolve().parents[2]


def verdicts(findings):
    return [(each.check, each.verdict) for each in findings]


# ---- settings


@pytest.mark.parametrize(
    ("filters", "never"),
    [
        (["a/#", "a/+/x"], {"a/+/x"}),
        (["a/+/x", "a/#"], set()),
        (["#", "a/#", "+/b"], {"a/#", "+/b"}),
        (["#", "$SYS/#"], set()),
        (["a/+", "a/#"], set()),
        (["a/+/#", "a/#"], set()),
        (["+/#", "a/#"], {"a/#"}),
        (["a/+", "+/a"], set()),
        (["+/+", "a/+", "+/b"], {"a/+", "+/b"}),
        (["a/#", "a/b"], set()),
    ],
)
def test_a_mapping_that_no_message_takes_is_named(filters, never):
    """Exact mappings come first, whatever is written."""
    routes = sorted((Route.of(name, "topic") for name in filters), key=lambda route: has_wildcard(route.mqtt_filter))
    assert {each.subject.removesuffix(":topic") for each in never_first(routes)} == never


@pytest.mark.parametrize(
    ("topics", "text"),
    [
        (["plant"], "1 route, to 1 Kafka topic"),
        (["plant", "plant", "others"], "3 routes, to 2 Kafka topics"),
        (["plant.{1}"], "1 route, by 1 template of Kafka topics"),
        (["plant", "plant.{1}", "site.{2}"], "3 routes, to 1 Kafka topic and by 2 templates of Kafka topics"),
    ],
)
def test_routes_are_counted_by_kafka_topics_and_templates(topics, text):
    assert counted([Route.of(f"a/{number}/#", topic) for number, topic in enumerate(topics)]) == text


# ---- TLS


def certificate(until):
    return {"notAfter": until, "issuer": ((("organizationName", "Example"),), (("commonName", "Example CA"),))}


def test_a_certificate_is_good_doubtful_before_its_end_and_doubtful_when_nobody_checks_it():
    report, until = Report("mqtt"), "Jan 11 00:00:00 2030 GMT"
    ends = 1_894_320_000
    good = tls.described(report, PLACE, certificate(until), "TLSv1.3", ends - 100 * 86_400)
    assert good.verdict == "good"
    assert "signed by 'Example CA'" in good.text
    soon = tls.described(report, PLACE, certificate(until), "TLSv1.3", ends - 10 * 86_400)
    assert (soon.verdict, "in 10 days" in soon.text) == ("doubtful", True)
    assert tls.described(report, PLACE, {}, "TLSv1.3", ends).verdict == "doubtful"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("certificate has expired", "Renew"),
        ("unable to get local issuer certificate", "MQTT_CA_FILE"),
        ("self-signed certificate in certificate chain", "MQTT_CA_FILE"),
        ("Hostname mismatch", "MQTT_BROKER_URL"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "no TLS"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", "MQTT_CERT_FILE"),
        ("whatever else", "log"),
    ],
)
def test_a_handshake_that_fails_says_what_to_do(words, advice):
    found = tls.refused(Report("mqtt"), PLACE, OSError(words), "MQTT")
    assert (found.verdict, advice in found.advice) == ("wrong", True)


def test_a_handshake_that_only_librdkafka_can_make_is_left_to_it():
    assert tls.kafka_context({"ssl.keystore.location": "/k"}) is None
    unchecked = tls.kafka_context({"enable.ssl.certificate.verification": "false"})
    assert unchecked is not None
    assert not unchecked.verify_mode


# ---- MQTT


@pytest.mark.parametrize(
    ("code", "verdict", "words"),
    [
        (0, "good", "MQTT 5"),
        (0x85, "doubtful", "rights may hang on the client id"),
        (0x86, "wrong", "MQTT_USER_PASSWORD"),
        (0x87, "wrong", "MQTT_USER_PASSWORD"),
        (0x84, "wrong", "MQTT_SHARED_GROUP"),
        (0x88, "wrong", "log"),
    ],
)
def test_what_connack_answers_is_judged(code, verdict, words):
    found = mqtt.signed_in(Answered(code, "its name"), VISITING, PLACE)
    assert found.verdict == verdict
    assert words in found.text + found.advice
    assert "pw" not in found.text


def test_what_suback_answers_is_judged_filter_by_filter():
    settings = load(MQTT_CLIENT_ID="bridge", MQTT_QOS="2")
    assert mqtt.subscribed("a/#", 2, Answered(2, "Granted QoS 2"), settings).verdict == "good"
    lower = mqtt.subscribed("a/#", 2, Answered(1, "Granted QoS 1"), settings)
    assert (lower.verdict, "QoS 1 instead of 2" in lower.text) == ("doubtful", True)
    assert mqtt.subscribed("a/#", 2, Answered(0x87, "Not authorized"), settings).verdict == "wrong"
    own = mqtt.subscribed("bridge/#", 2, Answered(0x87, "Not authorized"), settings)
    assert (own.verdict, "rights may hang on the client id" in own.text) == ("doubtful", True)


def test_limits_that_are_too_low_are_doubtful_and_those_that_exclude_us_wrong():
    settings = load(MQTT_SHARED_GROUP="g")
    little = SimpleNamespace(
        SessionExpiryInterval=60, ServerKeepAlive=10, SubscriptionIdentifierAvailable=0,
        WildcardSubscriptionAvailable=0, SharedSubscriptionAvailable=0, MaximumQoS=1, MaximumPacketSize=20,
    )  # fmt: skip
    found = list(mqtt.limits(settings, ["a/#", "a-filter-of-more-than-twenty-bytes"], little, PLACE))
    assert [each.subject for each in found if each.check == "filter"] == ["a/#", "a-filter-of-more-than-twenty-bytes"]
    assert {each.verdict for each in found if each.check == "filter"} == {"wrong"}
    assert ("limits", "wrong") in verdicts(found), "without shared subscriptions a group cannot be"
    assert {each.subject for each in found if each.verdict == "doubtful"} == {
        "session expiry", "keepalive", "subscription identifiers", "wildcard subscriptions",
    }  # fmt: skip
    everything = list(mqtt.limits(settings, ["a/#"], SimpleNamespace(), PLACE))
    assert verdicts(everything) == [("limits", "good")]


def test_the_visitors_client_id_begins_with_ours_and_fits():
    assert visitor_id("bridge", lambda _: "00") == "bridge-check-00"
    assert len(visitor_id("é" * 32_767).encode()) <= 65_535
    assert visitor_id("bridge") != visitor_id("bridge")


# ---- Kafka


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        ("kafka", [("kafka", 9092)]),
        ("kafka:1,[::1]:2,[::1],10.0.0.1:3", [("kafka", 1), ("::1", 2), ("::1", 9092), ("10.0.0.1", 3)]),
    ],
)
def test_the_addresses_of_kafka_broker_are_tried_each(brokers, expected):
    assert [(place.host, place.port) for place in kafka.places(load(KAFKA_BROKER=brokers).kafka_broker)] == expected


@pytest.mark.parametrize(
    ("refusal", "check", "words"),
    [
        (None, "sign_in", ""),
        (Refusal(SIGN_IN, "no"), "sign_in", "KAFKA_SASL_"),
        (Refusal(TLS, "no"), "tls", "KAFKA_CA_FILE"),
        (Refusal(RIGHT, "no"), "idempotent_write", "IdempotentWrite"),
        (Refusal(SILENT, "no"), "sign_in", "advertised.listeners"),
        (Refusal(SILENT, "ssl/tls alert bad certificate"), "tls", "KAFKA_CERT_FILE"),
    ],
)
def test_how_the_producer_was_received_is_judged(refusal, check, words):
    settings = load(KAFKA_SASL_MECHANISM="PLAIN", KAFKA_SASL_USERNAME="u", KAFKA_SASL_PASSWORD="secret-password")
    found = kafka.signed_in(refusal, settings, "SASL_PLAINTEXT")
    assert (found.check, found.verdict) == (check, "wrong" if refusal else "good")
    assert words in found.advice


def test_nodes_are_read_from_whatever_the_statistics_have():
    told = {"brokers": {
        "a": {"nodeid": -1, "nodename": "x:1"}, "b": {"nodeid": 2, "nodename": "[::1]:9092"}, "c": {"nodeid": 3},
        "d": {"nodeid": 4, "nodename": "y:port"},
    }}  # fmt: skip
    assert list(_nodes_in(told)) == [Node(2, "::1", 9092), Node(4, "y", 0)]


def topic(replicas=3, in_sync=3, leader=1, rights=("READ", "WRITE"), **values):
    nodes = tuple(range(1, replicas + 1))
    configuration = {name.replace("_", "."): str(value) for name, value in values.items()}
    return Topic(
        partitions={0: Partition(leader, nodes, in_sync)},
        rights=None if rights is None else frozenset(rights),
        values={"retention.ms": "604800000", "max.message.bytes": "1048588", **configuration},
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (topic(), []),
        (topic(1, 1), [("topic", "doubtful")]),
        (topic(min_insync_replicas=2), []),
        (topic(in_sync=2, min_insync_replicas=2), [("topic", "doubtful")]),
        (topic(in_sync=1, min_insync_replicas=2), [("topic", "wrong")]),
        (topic(2, 2, min_insync_replicas=2), [("topic", "doubtful")]),
        (topic(leader=-1), [("topic", "wrong")]),
        (topic(rights=None), [("write", "doubtful")]),
        (topic(rights=["READ"]), [("write", "wrong")]),
        (topic(rights=["ALL"]), []),
        (topic(retention_ms=3_600_000), [("retention", "doubtful")]),
        (topic(retention_ms=3_600_000, message_timestamp_type="LogAppendTime"), []),
        (topic(retention_ms=-1), []),
        (topic(cleanup_policy="compact"), [("cleanup", "doubtful")]),
        (topic(cleanup_policy="compact,delete"), [("cleanup", "doubtful")]),
        (topic(max_message_bytes=10), [("size", "wrong")]),
        (topic(max_message_bytes=80_000), [("size", "doubtful")]),
        (topic(message_timestamp_before_max_ms=1000), [("age", "doubtful")]),
        (topic(message_timestamp_after_max_ms=1000), [("clock", "doubtful")]),
        (Topic(is_missing=True), [("topic", "wrong")]),
        (Topic(refusal="Topic authorization failed"), [("topic", "wrong")]),
        (Topic(partitions={0: Partition(1, (1, 2, 3), 3)}, rights=frozenset({"WRITE"}), no_values="not allowed"),
         [("topic_settings", "doubtful")]),
        (Topic(rights=frozenset({"WRITE"}), values={"max.message.bytes": "x" * 500}), []),
    ],
)  # fmt: skip
def test_a_topic_is_judged_by_what_kafka_said_of_it(found, expected):
    settings = load(MQTT_MAXIMUM_PACKET_BYTES="100000")
    findings = list(topics.judged(settings, "records", found, nodes=3, has_no_keys=False))
    assert verdicts(each for each in findings if each.verdict != "good") == expected
    assert all(each.advice for each in findings if each.verdict != "good")
    assert {each.subject for each in findings} == {"records"}


def test_a_compacted_topic_refuses_records_without_a_key():
    compacted = topic(cleanup_policy="compact")
    assert ("cleanup", "wrong") in verdicts(topics.judged(load(), "records", compacted, nodes=3, has_no_keys=True))


def test_the_topics_are_those_of_the_mappings_and_of_dead_letters_each_once():
    """A Kafka topic that is made of MQTT topics is not known before a message comes."""
    mappings = {"TOPIC_LIST": "a:one,b:one", "WILDCARD_TOPIC_LIST": "c/{site}/#:two.{site}"}
    assert kafka.topics_of(load(**mappings, DEAD_LETTER_TOPIC="dead")) == {"one": False, "dead": False}
    assert kafka.topics_of(load(**mappings, RECORD_KEY="")) == {"one": True}
    one, other = Route.of("a", "one"), Route.of("b", "one")
    settings = SimpleNamespace(
        routes=(replace(one, key=Template("")), other), record_key=Template("{topic}"), dead_letter_topic=None
    )
    assert kafka.topics_of(settings) == {"one": True}, "one mapping without keys is enough"


# ---- the machine and the disk


def test_a_port_of_the_pages_that_is_taken_is_doubtful_and_an_address_of_others_wrong():
    """It may be the worker itself, beside which this runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert machine.pages("127.0.0.1", port).verdict == "doubtful"
        assert machine.pages("127.0.0.1", port, has_worker=True).verdict == "good", "it is its own"
        wrong = machine.pages("192.0.2.1", port)
    assert (wrong.verdict, "no address of this host" in wrong.advice) == ("wrong", True)
    assert machine.pages("127.0.0.1", port).verdict == "good"


MOUNTS = """\
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:30 / /data rw - nfs4 server:/data rw
22 20 0:31 / /with\\040blank ro,relatime - xfs /dev/sdb rw
23 20 0:32 / /tmp rw - tmpfs tmpfs rw
24 23 0:33 / /tmp rw - overlay overlay rw
""".splitlines()


@pytest.mark.parametrize(
    ("directory", "kind", "verdict"),
    [
        ("/srv/data", "ext4", "good"),
        ("/data", "nfs4", "doubtful"),
        ("/database", "ext4", "good"),
        ("/with blank/data", "xfs", "wrong"),
        ("/tmp/x", "overlay", "doubtful"),
    ],
)
def test_the_file_system_is_that_which_is_mounted_last_above_the_directory(directory, kind, verdict):
    mount = disk.mount_of(Path(directory), MOUNTS)
    assert mount is not None
    assert mount.kind == kind
    assert disk.of_mount(Path(directory), mount).verdict == verdict
    assert disk.mount_of(Path(directory), []) is None


@pytest.mark.parametrize(
    ("limit", "free", "used", "verdict"),
    [
        (GIBIBYTE, 10 * GIBIBYTE, 0, "good"),
        (GIBIBYTE, GIBIBYTE, 0, "doubtful"),
        (GIBIBYTE, GIBIBYTE, 3 * GIBIBYTE, "good"),
        (GIBIBYTE, 3 * GIBIBYTE, 0, "doubtful"),  # the table fits, and not its copy
        (GIBIBYTE, 1024, 3 * GIBIBYTE, "wrong"),
        (None, GIBIBYTE, 0, "good"),
    ],
)
def test_the_free_space_is_judged_by_what_a_full_table_takes(limit, free, used, verdict):
    assert disk.of_space(limit, Path("/data"), free, used).verdict == verdict


def test_a_table_that_is_there_keeps_its_limit_however_large_the_disk_became(tmp_path):
    """With the setting unset; what a first start would choose is said where there is no table alone."""
    assert "at a first start" in disk.of_space(None, tmp_path, GIBIBYTE, 0).text
    (tmp_path / "undelivered").mkdir()
    assert "keeps the limit of its first start" in disk.of_space(None, tmp_path, 10 * GIBIBYTE, 0).text


def test_what_a_repair_has_set_aside_is_no_room_for_the_table(tmp_path):
    """The table's own files count as free for it; damaged ones of earlier stay until somebody deletes them."""
    for name in ("undelivered", "damaged-20260101-000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000001.sst").write_bytes(bytes(1_000_000))
    assert 1_000_000 <= disk._used_bytes(tmp_path) < 1_900_000


def test_a_disk_that_does_not_answer_is_given_up(tmp_path):
    never = threading.Event()
    with pytest.raises(TimeoutError, match="no answer"):
        list(disk.within(0.05, lambda: [never.wait(5)]))
    never.set()
    assert disk.of_sync(tmp_path, 0.01).verdict == "good"
    assert disk.of_sync(tmp_path, 0.5).verdict == "doubtful"


def test_without_a_directory_the_table_is_in_memory_which_is_doubtful():
    findings = [each for each in disk.disk(load()) if isinstance(each, Finding)]
    assert ("directory", "doubtful") in verdicts(findings)


def test_a_directory_that_everybody_may_write_to_is_wrong_as_at_a_start(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    findings = [each for each in disk.disk(load(DB_PERSIST_PATH=str(data))) if isinstance(each, Finding)]
    (found,) = [each for each in findings if each.check == "directory"]
    assert (found.verdict, "chmod o-w" in found.text) == ("wrong", True)


# ---- the output


def test_the_last_line_counts_and_the_exit_code_is_1_for_what_is_wrong_alone(capsys):
    report = Report("mqtt")
    for found, code in ((report.doubtful("a", "", "b", "Do it."), 0), (report.wrong("a", "", "b", "Do it."), 1)):
        written = output.Output(as_json=False)
        written.show(Step("connecting"))
        written.show(report.good("a", "", "text"))
        written.show(found)
        assert written.end() == code
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 good, 0 doubtful, 1 wrong"
    assert "doubtful  mqtt      b. Do it." in out
    assert "... connecting" in err


@pytest.mark.parametrize("as_json", [False, True])
def test_what_brokers_say_is_escaped_and_no_secret_is_shown(as_json, capsys):
    """P6: a reason of a broker is a stranger's text, and may repeat what it was sent."""
    secret = "hunter2-canary-77"
    known.know([secret])
    written = output.Output(as_json=as_json)
    written.show(Report("mqtt").wrong("sign_in", f"{secret}", f"no\n\x1b[31m {secret} \u202e", f"Look at {secret}."))
    written.show(Step(f"signing in as {secret}\n"))
    written.end()
    out, err = capsys.readouterr()
    assert secret not in out + err
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out
    assert "\u202e" not in out
    if as_json:
        finding, summary = map(json.loads, out.splitlines())
        assert set(finding) == {"area", "check", "subject", "verdict", "text", "advice"}
        assert summary == {"summary": {"good": 0, "doubtful": 0, "wrong": 1}}
        assert err == ""


def test_the_document_names_each_check_that_programs_may_meet_in_json():
    """Their names stay, so that a script can rest on them."""
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "app" / "check").glob("*.py"))
    names = set(re.findall(r'(?:REPORT|report)\.(?:good|doubtful|wrong)\(\s*"([a-z_]+)"', source))
    assert len(names) > 25
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    told = page.partition("`check` is one of")[2].partition("`subject` is")[0]
    areas = {"settings", "machine", "disk", "mqtt", "kafka"}
    assert set(re.findall("`([a-z_]+)`", told)) == names | areas
