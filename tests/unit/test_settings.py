"""The settings: what is accepted, what is refused and how, and that no secret ever shows."""

import json
import logging
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import confluent_kafka
import pytest

from app.errors import SettingsError
from app.routes import MOST_ROUTES, Route, parse_pattern
from app.settings import (
    LARGEST_BATCH_BYTES,
    NAMES,
    SECRET_NAMES,
    Settings,
    environment_example,
    load_settings,
    variables,
    with_routes_read_anew,
)
from app.settings import kafka as kafka_settings
from app.settings.section import Section

REPOSITORY = Path(__file__).parents[2]
REQUIRED = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "mqtt.example.com",
    "MQTT_CLIENT_ID": "connector-1",
    "KAFKA_BROKER": "kafka.example.com:9092",
    "TOPIC_LIST": "a/b:kafka-a",
}
OIDC = {
    "SASL_SSL": "true",
    "SASL_OAUTHBEARER_CLIENT_ID": "id",
    "SASL_OAUTHBEARER_CLIENT_SECRET": "hidden",
    "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": "https://login.example.com/token",
}
SCRAM = {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "name", "KAFKA_SASL_PASSWORD": "hidden"}
CANARY = "canary-5f1c"
AUTHORITIES = "/system/authorities.pem"


def load(**changes):
    """Settings from the required variables and these; None takes one away."""
    return load_settings({name: value for name, value in {**REQUIRED, **changes}.items() if value is not None})


def problems_of(**changes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**changes)
    return caught.value.problems


@pytest.fixture
def in_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pem(tmp_path):
    path = tmp_path / "some.pem"
    path.write_text("pem")
    return str(path)


def test_the_required_variables_are_enough_and_the_rest_has_the_documented_defaults():
    settings = load()
    assert (settings.mqtt_host, settings.mqtt_port, settings.mqtt_tls) == ("mqtt.example.com", 1883, False)
    assert settings.routes == (Route.of("a/b", "kafka-a"),)
    assert settings.log_level == logging.INFO
    assert settings.record_key.render("a/b") == b"a/b"
    defaults = {
        "invoke_latency_sec": 10,
        "invoke_max_goroutine": 20000,
        "invoke_min_goroutine": 5000,
        "db_persist_path": None,
        "mqtt_qos": 1,
        "mqtt_version": "5",
        "mqtt_session_expiry_sec": 604800,
        "mqtt_keepalive_sec": 30,
        "mqtt_receive_maximum": 1000,
        "kafka_compression": "lz4",
        "kafka_partitioner": "murmur2_random",
        "store_after_ms": 100,
        "stop_budget_sec": 8,
        "undelivered_max_bytes": None,
        "undelivered_when_full": "block",
        "replay_max_rate": 0,
        "dead_letter_topic": None,
        "delivery": "at_least_once",
        "web_host": "127.0.0.1",
        "web_port": 6066,
        "web_allowed_hosts": "",
    }
    assert {name: getattr(settings, name) for name in defaults} == defaults


# Variable, value, and what the sentence about it must contain.
REFUSED = [
    ("TOPIC_LIST", "a", "allowed are mappings mqtt-filter:kafka-topic"),
    ("TOPIC_LIST", "a:b,", "mapping 2: '' has no colon"),
    ("TOPIC_LIST", "a:b c", "allowed are 1 to 249 characters"),
    ("TOPIC_LIST", ":b", "the MQTT filter is empty"),
    ("TOPIC_LIST", "a/#/b:c", "must be the last level"),
    ("TOPIC_LIST", "a/+:b", "belongs in WILDCARD_TOPIC_LIST"),
    ("TOPIC_LIST", "a:b,a:c", "more than once"),
    ("WILDCARD_TOPIC_LIST", "a/#/b:c", "must be the last level"),
    ("WILDCARD_TOPIC_LIST", "a+:c", "must be a whole level"),
    ("WILDCARD_TOPIC_LIST", "+:x,a/b:y", "more than once, here and in TOPIC_LIST"),
    ("LOG_LVL", "verbose", "one of panic, fatal, error, warn, info, debug, trace, not 'verbose'"),
    ("RUN_MODE", "TEST", "one of DEVELOP, PRODUCTION"),
    ("MQTT_BROKER_PORT", "0", "a whole number from 1 to 65535, not '0'"),
    ("MQTT_BROKER_PORT", "65536", "a whole number from 1 to 65535"),
    ("MQTT_BROKER_PORT", "1_883", "a whole number from 1 to 65535"),
    ("WEB_PORT", "0", "a whole number from 1 to 65535"),
    ("WEB_PORT", "9" * 5000, "a whole number from 1 to 65535"),
    ("WEB_HOST", "host:80", "without port"),
    ("WEB_ALLOWED_HOSTS", "*", "host names in ASCII, separated by commas"),
    ("WEB_ALLOWED_HOSTS", "a.example,b.example:6066", "without scheme and port (*.example.com is every name"),
    ("WEB_ALLOWED_HOSTS", ",,", "must be host names, separated by commas, or unset, and ',,' has none"),
    ("WEB_ALLOWED_HOSTS", " . , ", "has none"),
    ("WEB_ALLOWED_HOSTS", "*.com", "must not be so wide: *.com has names of strangers in it; name two labels"),
    ("WEB_ALLOWED_HOSTS", "a.example,*.COM.", "must not be so wide: *.COM has"),
    ("WEB_ALLOWED_HOSTS", "*.", "not '*'"),
    ("WEB_ALLOWED_HOSTS", "https://a.example", "without scheme and port"),
    ("WEB_ALLOWED_HOSTS", "a.*.example", "not 'a.*.example'"),
    ("WEB_ALLOWED_HOSTS", "::1", "addresses are always answered"),
    ("WEB_HOST", f"{'a' * 64}.example", "host name"),
    ("MQTT_BROKER_URL", "http://host", "mqtt://host[:port]"),
    ("MQTT_BROKER_URL", "mqtt://host:70000", "a port from 1 to 65535, not '70000'"),
    ("MQTT_BROKER_URL", "mqtt://host:", "a port from 1 to 65535"),
    ("MQTT_BROKER_URL", "mqtt://", "mqtt://host[:port]"),
    ("MQTT_BROKER_URL", "mqtt://host/path", "mqtt://host[:port]"),
    ("MQTT_BROKER_URL", "::1", "IPv6 address in brackets"),
    ("MQTT_BROKER_URL", "[host]", "IPv6 address in brackets"),
    ("MQTT_BROKER_URL", "10.0.0.300", "no host name or IP address"),
    ("MQTT_BROKER_URL", "mqtt://user:pass@host", "set MQTT_USER_NAME"),
    ("MQTT_CLIENT_ID", "a\nb", "control characters"),
    ("MQTT_CLIENT_ID", "ä" * 32768, "at most 65535 bytes"),
    ("MQTT_CLIENT_ID", "\udcff", "text in UTF-8"),
    ("MQTT_USER_NAME", "a\0", "NUL"),
    ("MQTT_USER_PASSWORD", "ä" * 32768, "at most 65535 bytes"),
    ("MQTT_QOS", "3", "from 0 to 2"),
    ("MQTT_VERSION", "4", "one of 5, 3.1.1"),
    ("MQTT_SESSION_EXPIRY_SEC", "4294967296", "from 0 to 4294967295"),
    ("MQTT_KEEPALIVE_SEC", "4", "from 5 to 65535"),
    ("MQTT_RECEIVE_MAXIMUM", "0", "from 1 to 65535"),
    ("MQTT_TLS", "maybe", "true or false"),
    ("MQTT_CA_FILE", __file__, "MQTT_TLS=true"),
    ("MQTT_SHARED_GROUP", "a/b", "'a/b' is no name of a group; allowed is printable text"),
    ("MQTT_SHARED_GROUP", "a+", "without '/', '+' and '#'"),
    ("MQTT_SHARED_GROUP", "#", "without '/', '+' and '#'"),
    ("MQTT_SHARED_GROUP", "a\nb", "printable text"),
    ("MQTT_SHARED_GROUP", "a\0", "NUL"),
    ("MQTT_SHARED_GROUP", "\udcff", "text in UTF-8"),
    ("WEB_TOKEN", "fifteen-letters", "16 to 1024 characters"),
    ("WEB_TOKEN", "a blank is not allowed", "printable ASCII without blanks"),
    ("WEB_TOKEN", "sixteen-and-a-ümlaut", "printable ASCII without blanks"),
    ("WEB_TOKEN", "x" * 1025, "16 to 1024 characters"),
    ("DELIVERY", "exactly_once", "is not built yet"),
    ("DELIVERY", "maybe", "one of at_least_once, exactly_once"),
    ("KAFKA_BROKER", "a:1,,b:2", "several separated by commas"),
    ("KAFKA_BROKER", "a:0", "a port from 1 to 65535"),
    ("KAFKA_BROKER", "SSL://a:1", "without a scheme"),
    ("KAFKA_BROKER", "user:pass@a:1", "KAFKA_SASL_"),
    ("KAFKA_CERT_FILE", __file__, "KAFKA_TLS=true"),
    ("KAFKA_SASL_MECHANISM", "GSSAPI", "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    ("KAFKA_SASL_USERNAME", "name", "KAFKA_SASL_MECHANISM"),
    ("KAFKA_SASL_PASSWORD", "word", "KAFKA_SASL_MECHANISM"),
    ("KAFKA_COMPRESSION", "br", "one of none, gzip, snappy, lz4, zstd"),
    ("KAFKA_PARTITIONER", "java", "one of consistent, consistent_random, murmur2, murmur2_random, fnv1a, fnv1a_random"),
    ("KAFKA_PRODUCER_CONFIG", '{"partitioner": "murmur2"}', "set KAFKA_PARTITIONER instead"),
    ("RECORD_KEY", "{0}", "allowed are {topic} and levels from {1} on"),
    ("RECORD_KEY", "{1", "written '{{'"),
    ("STORE_AFTER_MS", "60001", "from 0 to 60000"),
    ("STOP_BUDGET_SEC", "0", "from 1 to 600"),
    ("INVOKE_LATENCY_SEC", "0", "greater than 0"),
    ("INVOKE_LATENCY_SEC", "nan", "greater than 0"),
    ("INVOKE_LATENCY_SEC", "inf", "greater than 0"),
    ("INVOKE_MAX_GOROUTINE", "1", "at least 2"),
    ("INVOKE_MIN_GOROUTINE", "0", "at least 1"),
    ("INVOKE_MIN_GOROUTINE", "20000", "below INVOKE_MAX_GOROUTINE (20000), also named REPLAY_MAX_IN_FLIGHT"),
    ("UNDELIVERED_MAX_BYTES", "1048575", "at least 1048576 (1 MiB)"),
    ("UNDELIVERED_MAX_BYTES", "many", "at least 1048576 (1 MiB)"),
    ("UNDELIVERED_MAX_BYTES", "-5GB", "at least 1048576 (1 MiB)"),
    ("UNDELIVERED_WHEN_FULL", "drop", "one of block, drop_oldest"),
    ("REPLAY_MAX_RATE", "-1", "at least 0"),
    ("DEAD_LETTER_TOPIC", "a b", "allowed are 1 to 249 characters"),
    ("DEAD_LETTER_TOPIC", "kafka-a", "topic of its own"),
    ("DB_PERSIST_PATH", __file__, "the path of a directory"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), REFUSED, ids=lambda value: value[:30])
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(name, value, sentence):
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"{name}: ")
    assert sentence in problem
    assert "Value error" not in problem
    assert len(problem) < 400


def test_a_shared_group_is_a_name_that_mqtt_5_allows():
    assert load().mqtt_shared_group is None
    assert load(MQTT_SHARED_GROUP="Anlage Süd:1").mqtt_shared_group == "Anlage Süd:1"
    (problem,) = problems_of(MQTT_SHARED_GROUP="group", MQTT_VERSION="3.1.1")
    assert problem.startswith("MQTT_SHARED_GROUP: works only with MQTT_VERSION=5")


@pytest.mark.parametrize(("name", "beginning"), [("TOPIC_LIST", ""), ("WILDCARD_TOPIC_LIST", "+/")])
def test_a_filter_that_is_too_long_to_be_shared_is_refused(name, beginning):
    longest = beginning.ljust(65535 - len("$share/group/"), "a")
    load(**{name: f"{longest}:kafka", "MQTT_SHARED_GROUP": "group"})
    load(**{name: f"{longest}a:kafka"})
    (problem,) = problems_of(**{name: f"{longest}a:kafka", "MQTT_SHARED_GROUP": "group"})
    assert problem.startswith(f"{name}: ")
    assert "is 65536 bytes long with MQTT_SHARED_GROUP before it" in problem


def test_every_wrong_value_is_in_one_report():
    # Left out are those on whose being right another check depends.
    left_out = ("KAFKA_SASL_MECHANISM", "TOPIC_LIST", "MQTT_TLS")
    one_per_name = {name: value for name, value, _ in reversed(REFUSED) if name not in left_out}
    found = [problem.partition(":")[0] for problem in problems_of(TOPIC_LIST="a,b", **one_per_name)]
    assert sorted(found) == sorted(["TOPIC_LIST", *one_per_name])


def test_every_wrong_mapping_is_in_the_report():
    (problem,) = problems_of(TOPIC_LIST="a,b/+:c,d:e f,g:h")
    assert all(part in problem for part in ("mapping 1: 'a'", "mapping 2:", "mapping 3:"))
    assert "mapping 4" not in problem


@pytest.mark.parametrize("name", ["MQTT_BROKER_URL", "MQTT_CLIENT_ID", "KAFKA_BROKER"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_required_variable_is_named(name, value):
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"{name}: is required. ")


@pytest.mark.parametrize("value", [None, "", " "])
def test_at_least_one_mapping_is_required(value):
    (problem,) = problems_of(TOPIC_LIST=value)
    assert problem.startswith(
        "WILDCARD_TOPIC_LIST: at least one mapping is required, here, in TOPIC_LIST or in ROUTES_FILE"
    )
    assert "mqtt-filter:kafka-topic" in problem


def test_mappings_are_split_at_the_last_colon_and_trimmed():
    settings = load(TOPIC_LIST=" a:b/c : k1 ,d:k2", WILDCARD_TOPIC_LIST="#:k3, plain:k4 ,a/+/b:k3")
    exact = (Route.of("a:b/c", "k1"), Route.of("d", "k2"))
    assert settings.routes == (*exact, Route.of("#", "k3"), Route.of("plain", "k4"), Route.of("a/+/b", "k3"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"MQTT_BROKER_URL": "mqtt://h"}, ("h", 1883, False)),
        ({"MQTT_BROKER_URL": "mqtt://h:1/", "MQTT_BROKER_PORT": "2"}, ("h", 1, False)),
        ({"MQTT_BROKER_URL": "h", "MQTT_BROKER_PORT": "2"}, ("h", 2, False)),
        ({"MQTT_BROKER_URL": "h:1"}, ("h", 1, False)),
        ({"MQTT_BROKER_URL": "mqtts://h"}, ("h", 8883, True)),
        ({"MQTT_BROKER_URL": "mqtts://h", "MQTT_BROKER_PORT": "1883"}, ("h", 1883, True)),
        ({"MQTT_BROKER_URL": "mqtts://h:1"}, ("h", 1, True)),
        ({"MQTT_BROKER_URL": "mqtt://[::1]:1"}, ("::1", 1, False)),
        ({"MQTT_BROKER_URL": "[fe80::1]"}, ("fe80::1", 1883, False)),
        ({"MQTT_BROKER_URL": "h", "MQTT_TLS": "Yes"}, ("h", 1883, True)),
        ({"MQTT_BROKER_URL": "10.0.0.3"}, ("10.0.0.3", 1883, False)),
    ],
)
def test_the_mqtt_broker_is_read_from_its_url(changes, expected):
    settings = load(**changes)
    assert (settings.mqtt_host, settings.mqtt_port, settings.mqtt_tls) == expected


@pytest.mark.parametrize(
    ("text", "level"),
    [("panic", 50), ("fatal", 50), ("error", 40), ("warn", 30), ("info", 20), ("DEBUG", 10), ("trace", 5)],
)
def test_log_levels_are_those_of_logging(text, level):
    assert load(LOG_LVL=text).log_level == level


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1048576", 2**20),
        ("500MB", 500_000_000),
        ("2GiB", 2**31),
        ("1mib", 2**20),
        ("3 tb", 3 * 10**12),
        ("1048576B", 2**20),
    ],
)
def test_sizes_may_have_units(text, size_bytes):
    assert load(UNDELIVERED_MAX_BYTES=text).undelivered_max_bytes == size_bytes


def test_an_empty_variable_counts_as_unset_except_the_record_key():
    empty = {name: "" for name in (*NAMES, *(f"{name}_FILE" for name in SECRET_NAMES)) if name not in REQUIRED}
    settings = load(**empty)
    assert settings.record_key.render("a") is None
    assert {**settings.model_dump(), "record_key": None} == {**load().model_dump(), "record_key": None}


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load().mqtt_qos = 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REPLAY_MAX_IN_FLIGHT": "1000", "REPLAY_REFILL_BELOW": "50"}, (1000, 50)),
        ({"REPLAY_MAX_IN_FLIGHT": "1000", "INVOKE_MAX_GOROUTINE": "1000", "INVOKE_MIN_GOROUTINE": "7"}, (1000, 7)),
        ({"REPLAY_REFILL_BELOW": "", "INVOKE_MIN_GOROUTINE": "7"}, (20_000, 7)),
        ({"REPLAY_MAX_IN_FLIGHT": "1000"}, (1000, 250)),
        ({"INVOKE_MAX_GOROUTINE": "2"}, (2, 1)),
        ({"INVOKE_MAX_GOROUTINE": "50000"}, (50_000, 5000)),
    ],
)
def test_the_bounds_of_the_replay_have_readable_names_too(variables, expected):
    settings = load(**variables)
    assert (settings.invoke_max_goroutine, settings.invoke_min_goroutine) == expected
    assert settings.unknown_names == ()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"REPLAY_MAX_IN_FLIGHT": "10", "INVOKE_MAX_GOROUTINE": "20"},
            "REPLAY_MAX_IN_FLIGHT: is another name of INVOKE_MAX_GOROUTINE, and they differ ('10' and '20')",
        ),
        ({"REPLAY_MAX_IN_FLIGHT": "1"}, "REPLAY_MAX_IN_FLIGHT: must be a whole number, at least 2"),
    ],
)
def test_a_wrong_value_by_a_readable_name_is_reported_by_that_name(variables, sentence):
    assert sentence in problems_of(**variables)[0]


def test_names_that_look_like_settings_are_collected_but_not_those_of_kubernetes():
    settings = load(
        MQTT_BROKER="x",
        KAFKA_BROKERS="x",
        INVOKE_LATENCY="x",
        PATH="x",
        KAFKA_SERVICE_HOST="x",
        KAFKA_PORT="tcp://10.0.0.1:9092",
        MQTT_PORT_1883_TCP="x",
        MQTT_USER_PASSWORD_FILE="",
    )
    assert settings.unknown_names == ("INVOKE_LATENCY", "KAFKA_BROKERS", "MQTT_BROKER")


@pytest.mark.parametrize(("name", "service"), [("MQTT_BROKER_PORT", "mqtt-broker"), ("WEB_PORT", "web")])
def test_a_port_that_kubernetes_set_for_a_service_of_that_name_is_recognised(name, service):
    (problem,) = problems_of(**{name: "tcp://10.0.0.1:80"})
    assert problem.startswith(f"{name}: must be a whole number from 1 to 65535")
    assert f"a Service named {service}: put enableServiceLinks: false" in problem


def test_an_address_of_the_pages_may_have_brackets_and_variables_like_theirs_are_named():
    assert load(WEB_ALLOWED_HOSTS=" A.example., *.b.example,").web_allowed_hosts == "a.example,*.b.example"
    assert [load(WEB_HOST=host).web_host for host in ("[::]", "::", "[::1]")] == ["::", "::", "::1"]
    for wrong in ("[localhost]", "[::1", "::1]", "[]", "::1:6066x", "http://localhost"):
        assert "WEB_HOST: must be a host name or an IP address" in problems_of(WEB_HOST=wrong)[0]
    assert load(WEB_BIND="0.0.0.0", WEB_SERVICE_HOST="x").unknown_names == ("WEB_BIND",)


# ---- .env


def test_develop_reads_dotenv_and_the_environment_beats_it(in_directory):
    (in_directory / ".env").write_text("MQTT_CLIENT_ID=from-file\nMQTT_QOS=2\nMQTT_USER_PASSWORD=a${HOME}b\nMQTT_X=1\n")
    settings = load(RUN_MODE=None, MQTT_CLIENT_ID="from-environment")
    assert (settings.mqtt_client_id, settings.mqtt_qos) == ("from-environment", 2)
    assert settings.mqtt_user_password.get_secret_value() == "a${HOME}b"
    assert settings.unknown_names == ("MQTT_X",)
    assert load(RUN_MODE="develop", MQTT_CLIENT_ID=None).mqtt_client_id == "from-file"


def test_production_does_not_read_dotenv(in_directory):
    (in_directory / ".env").write_text("MQTT_QOS=2\n")
    assert load().mqtt_qos == 1
    assert load(RUN_MODE="DEVELOP").mqtt_qos == 2


def test_a_dotenv_that_is_no_text_is_reported(in_directory):
    (in_directory / ".env").write_bytes(b"MQTT_QOS=\xff\n")
    assert problems_of(RUN_MODE=None) == [".env: must be UTF-8 text"]


def test_a_dotenv_that_is_a_pipe_or_leads_nowhere_is_reported_and_what_stands_for_none_is_none(in_directory):
    """It was left out without a word, and with it what it may have said of TLS."""
    path = in_directory / ".env"
    for make in (os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to("/dev/zero")):
        make(path)
        (problem,) = problems_of(RUN_MODE=None)
        assert problem in {
            ".env: must be a regular file",
            ".env: cannot be read (No such file or directory); make it readable, or remove it",
        }
        path.unlink()
    path.symlink_to(os.devnull)
    assert load(RUN_MODE=None)
    path.unlink()
    path.mkdir()
    assert load(RUN_MODE=None)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
@pytest.mark.parametrize("is_link", [False, True])
def test_a_dotenv_that_another_user_put_into_the_directory_is_refused(in_directory, is_link):
    """In a directory such as /tmp it would decide where messages go."""
    path = in_directory / ".env"
    if is_link:
        (in_directory / "ours").write_text("MQTT_QOS=2\n")
        path.symlink_to("ours")
        assert load(RUN_MODE=None).mqtt_qos == 2
    else:
        path.write_text("MQTT_QOS=2\n")
    os.chown(path, 12_345, -1, follow_symlinks=False)
    (problem,) = problems_of(RUN_MODE=None)
    assert problem.startswith(".env: belongs to the user 12345, and this process runs as 0; ")
    assert load().mqtt_qos == 1


def test_no_file_that_everybody_may_write_to_is_taken_for_settings_secrets_or_certificates(in_directory, pem):
    (in_directory / ".env").write_text("MQTT_QOS=2\n")
    for path in (".env", pem):
        Path(path).chmod(0o646)
    for changes in ({"RUN_MODE": None}, {"MQTT_USER_PASSWORD_FILE": pem}, {"KAFKA_TLS": "true", "KAFKA_CA_FILE": pem}):
        (problem,) = problems_of(**changes)
        assert "everybody on this host may write to it; look at what is in it, then chmod o-w" in problem


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch):
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MQTT_QOS", "2")
    assert load_settings().mqtt_qos == 2


# ---- secrets


def complete_secrets(value: str) -> list[dict[str, str]]:
    """Environments that are right, with this value as every secret that can be set."""
    return [
        {"MQTT_USER_NAME": "u", "MQTT_USER_PASSWORD": value},
        {**OIDC, "SASL_OAUTHBEARER_CLIENT_SECRET": value},
        {**SCRAM, "KAFKA_SASL_PASSWORD": value},
        {"KAFKA_PRODUCER_CONFIG": json.dumps({"ssl.key.password": value})},
        {"WEB_TOKEN": f"{value}-{value}"},
    ]


@pytest.mark.parametrize("changes", complete_secrets(CANARY), ids=lambda changes: list(changes)[-1])
def test_a_secret_is_not_in_the_text_of_settings(changes):
    settings = load(**changes)
    assert CANARY in str(
        [getattr(settings, name.lower()).get_secret_value() for name in changes if name in SECRET_NAMES]
    )
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert CANARY not in text


WAYS_TO_BE_WRONG = [
    {"MQTT_QOS": "9"},
    {"MQTT_USER_PASSWORD": f"{CANARY}\0"},
    {"MQTT_USER_PASSWORD": CANARY * 10000},
    {"MQTT_USER_PASSWORD": f"{CANARY}\udcff"},
    {"MQTT_USER_PASSWORD": CANARY, "MQTT_VERSION": "3.1.1"},
    {"MQTT_USER_PASSWORD": CANARY, "MQTT_USER_PASSWORD_FILE": __file__},
    {"MQTT_BROKER_URL": f"mqtt://user:{CANARY}@host"},
    {"MQTT_BROKER_URL": f"user:{CANARY}@host:x"},
    {"KAFKA_BROKER": f"user:{CANARY}@host:1"},
    {"KAFKA_BROKER": f"SASL_SSL://user:{CANARY}@host:1"},
    {**OIDC, "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": f"https://user:{CANARY}@host/"},
    {**OIDC, "SASL_OAUTHBEARER_CLIENT_SECRET": CANARY, "SASL_OAUTHBEARER_CLIENT_ID": None},
    {**OIDC, "SASL_OAUTHBEARER_CLIENT_SECRET": f"{CANARY}\udcff"},
    {**OIDC, "KAFKA_SASL_PASSWORD": CANARY},
    {"KAFKA_SASL_PASSWORD": CANARY},
    {**SCRAM, "KAFKA_SASL_PASSWORD": f"{CANARY}\udcff"},
    {"WEB_TOKEN": f"{CANARY} {CANARY}"},
    {"KAFKA_PRODUCER_CONFIG": CANARY},
    {"KAFKA_PRODUCER_CONFIG": f'{{"a": "{CANARY}'},
    {"KAFKA_PRODUCER_CONFIG": f'["{CANARY}"]'},
    {"KAFKA_PRODUCER_CONFIG": f'{{"a": ["{CANARY}"]}}'},
    {"KAFKA_PRODUCER_CONFIG": f'{{"{CANARY}": 1}}'},
    {"KAFKA_PRODUCER_CONFIG": f'{{"acks": "{CANARY}"}}'},
    {"KAFKA_PRODUCER_CONFIG": f'{{"batch.size": "{CANARY}"}}'},
    {"KAFKA_PRODUCER_CONFIG": f"{CANARY}\udcff"},
]


@pytest.mark.parametrize("changes", WAYS_TO_BE_WRONG, ids=lambda changes: str(changes)[:100])
@pytest.mark.parametrize("others", [{}, *complete_secrets(CANARY)], ids=lambda others: (list(others) or ["alone"])[-1])
def test_a_secret_is_not_in_an_error_however_it_is_wrong(changes, others):
    with pytest.raises(SettingsError) as caught:
        # A wrong value elsewhere, as some of the combinations are right.
        load(**{**others, **changes, "WEB_PORT": "0"})
    error = caught.value
    assert CANARY not in f"{error} {error!r} {error.problems}"
    # A log of the whole traceback includes what the error was raised from.
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error)).replace(__file__, "")


@pytest.mark.parametrize(
    "name", ["MQTT_USER_PASSWORD", "SASL_OAUTHBEARER_CLIENT_SECRET", "KAFKA_SASL_PASSWORD", "KAFKA_PRODUCER_CONFIG"]
)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(tmp_path, name, ending):
    value = '{"linger.ms": 5}\n' if name == "KAFKA_PRODUCER_CONFIG" else " se cret\n"
    path = tmp_path / "secret"
    path.write_bytes(f"{value}{ending}".encode())
    needed = {**(OIDC if "OAUTH" in name else {}), **(SCRAM if "KAFKA_SASL" in name else {})}
    settings = load(**{**needed, name: None, f"{name}_FILE": str(path)})
    assert getattr(settings, name.lower()).get_secret_value() == (value if ending else value[:-1])


def test_each_secret_has_a_file_variant():
    assert set(SECRET_NAMES) == {
        "MQTT_USER_PASSWORD",
        "SASL_OAUTHBEARER_CLIENT_SECRET",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_PRODUCER_CONFIG",
        "WEB_TOKEN",
    }


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_set_twice_is_refused(name, pem):
    found = problems_of(**{name: CANARY, f"{name}_FILE": pem})
    assert found == [f"{name}_FILE: must not be set together with {name}; allowed is one of them"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_an_unreadable_secret_file_is_reported_once_with_its_path(name, tmp_path):
    needed = {**(OIDC if "OAUTH" in name else {}), **(SCRAM if "KAFKA_SASL" in name else {})}
    (problem,) = problems_of(**{**needed, name: None, f"{name}_FILE": str(tmp_path / "absent")})
    assert problem.startswith(f"{name}_FILE: must be the path of a readable file")
    assert str(tmp_path / "absent")[:60] in problem


@pytest.mark.parametrize("levels", [1, 8, 24])
def test_a_path_or_filter_at_fault_is_named_however_long_it_is(levels):
    """One that is missing, or mapped twice, is found by its name alone."""
    path = Path("/usr", *["directory"] * levels)  # not in a directory of the test's, whose length differs
    (missing,) = problems_of(WEB_TOKEN_FILE=str(path))
    assert f"{str(path)!r}: No such file" in missing
    name = "/".join(["plant/line"] * levels)
    (twice,) = problems_of(TOPIC_LIST=f"{name}:a,{name}:b")
    assert f"the MQTT filter {name!r} is mapped more than once" in twice
    (wildcard,) = problems_of(TOPIC_LIST=f"{name}/#:a")
    assert f"the MQTT filter '{name}/#' has a wildcard" in wildcard


@pytest.mark.parametrize(("content", "sentence"), [(b"", "is empty"), (b"\n", "is empty"), (b"a\xff", "UTF-8 text")])
def test_a_secret_file_without_a_usable_value_is_refused(tmp_path, content, sentence):
    (tmp_path / "secret").write_bytes(content)
    (problem,) = problems_of(MQTT_USER_PASSWORD_FILE=str(tmp_path / "secret"))
    assert sentence in problem


def test_a_wrong_value_from_a_file_is_reported_under_the_name_of_the_file_variable(pem):
    assert problems_of(WEB_TOKEN_FILE=pem) == [
        "WEB_TOKEN_FILE: must have 16 to 1024 characters, printable ASCII without blanks"
    ]
    (problem,) = problems_of(KAFKA_PRODUCER_CONFIG_FILE=pem)
    assert problem.startswith("KAFKA_PRODUCER_CONFIG_FILE: must be a JSON object")


# ---- Kafka


def kafka(**changes) -> dict[str, object]:
    configuration = load(**changes).kafka_configuration()
    assert configuration.pop("bootstrap.servers") == "kafka.example.com:9092"
    assert configuration.pop("compression.type") == changes.get("KAFKA_COMPRESSION", "lz4")
    assert configuration.pop("partitioner") == changes.get("KAFKA_PARTITIONER", "murmur2_random")
    assert configuration.pop("client.id") == "connector-1"
    return configuration


def test_kafka_is_plain_text_without_further_settings():
    assert kafka() == {"security.protocol": "PLAINTEXT"}
    assert kafka(KAFKA_COMPRESSION="zstd", KAFKA_PARTITIONER="random") == {"security.protocol": "PLAINTEXT"}


def test_several_brokers_become_bootstrap_servers():
    assert load(KAFKA_BROKER="a:1, b , [::1]:3").kafka_configuration()["bootstrap.servers"] == "a:1,b,[::1]:3"


@pytest.fixture
def system_authorities(monkeypatch):
    """Let the system's authorities be at a place that is known."""
    monkeypatch.setattr(kafka_settings, "_system_authorities", lambda: Path(AUTHORITIES))


def test_sasl_ssl_signs_in_with_oidc(system_authorities):
    assert kafka(**OIDC) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "id",
        "sasl.oauthbearer.client.secret": "hidden",
        "sasl.oauthbearer.token.endpoint.url": "https://login.example.com/token",
        "https.ca.location": AUTHORITIES,
    }


def test_the_authority_of_the_token_endpoint_is_its_own(pem, certificates, system_authorities):
    authorities = str(certificates.ca_file)
    configuration = kafka(SASL_OAUTHBEARER_CA_FILE=authorities, **OIDC)
    assert configuration["https.ca.location"] == authorities
    assert "ssl.ca.location" not in configuration
    assert kafka(KAFKA_CA_FILE=pem, **OIDC)["https.ca.location"] == AUTHORITIES
    (problem,) = problems_of(SASL_OAUTHBEARER_CA_FILE=pem)
    assert problem == "SASL_OAUTHBEARER_CA_FILE: works only with SASL_SSL=true"
    (problem,) = problems_of(SASL_OAUTHBEARER_CA_FILE=pem, **OIDC)
    assert problem.startswith(
        "SASL_OAUTHBEARER_CA_FILE: must be a PEM file with certificates of authorities; OpenSSL s"
    )


def test_sasl_ssl_requires_its_three_variables():
    names = [name for name in OIDC if name != "SASL_SSL"]
    assert problems_of(SASL_SSL="true") == [f"{name}: is required with SASL_SSL=true" for name in names]


def test_sasl_ssl_excludes_user_name_and_password():
    found = problems_of(**OIDC, **SCRAM)
    assert [problem.partition(":")[0] for problem in found] == list(SCRAM)
    assert all("must be unset with SASL_SSL=true" in problem for problem in found)


def test_the_variables_of_oidc_are_not_looked_for_without_sasl_ssl():
    assert kafka(**{**OIDC, "SASL_SSL": "false"}) == {"security.protocol": "PLAINTEXT"}


@pytest.mark.parametrize(("tls", "protocol"), [("true", "SASL_SSL"), ("false", "SASL_PLAINTEXT")])
def test_a_mechanism_signs_in_with_user_name_and_password(tls, protocol):
    assert kafka(KAFKA_TLS=tls, **SCRAM) == {
        "security.protocol": protocol,
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "name",
        "sasl.password": "hidden",
    }


def test_a_mechanism_requires_user_name_and_password():
    found = problems_of(KAFKA_SASL_MECHANISM="plain")
    assert found == [
        f"KAFKA_SASL_{name}: is required with KAFKA_SASL_MECHANISM=PLAIN" for name in ("USERNAME", "PASSWORD")
    ]


def test_tls_files_reach_librdkafka(pem):
    files = {"KAFKA_CA_FILE": pem, "KAFKA_CERT_FILE": pem, "KAFKA_KEY_FILE": pem}
    expected = {"ssl.ca.location": pem, "ssl.certificate.location": pem, "ssl.key.location": pem}
    assert kafka(KAFKA_TLS="true", **files) == {"security.protocol": "SSL", **expected}
    assert kafka(KAFKA_CA_FILE=pem, **OIDC)["ssl.ca.location"] == pem


@pytest.mark.parametrize("side", ["MQTT", "KAFKA"])
def test_certificate_and_key_need_each_other(side, pem):
    (problem,) = problems_of(**{f"{side}_TLS": "true", f"{side}_CERT_FILE": pem})
    assert problem.startswith(f"{side}_KEY_FILE: is required, as {side}_CERT_FILE is set")
    (problem,) = problems_of(**{f"{side}_TLS": "true", f"{side}_KEY_FILE": pem})
    assert problem.startswith(f"{side}_KEY_FILE: works only with {side}_CERT_FILE")


@pytest.mark.parametrize("name", ["MQTT_CA_FILE", "KAFKA_CA_FILE", "KAFKA_CERT_FILE", "SASL_OAUTHBEARER_CA_FILE"])
def test_an_unreadable_tls_file_is_reported_once(name, tmp_path):
    key = {"KAFKA_KEY_FILE": __file__} if name == "KAFKA_CERT_FILE" else {}
    key |= OIDC if name.startswith("SASL_") else {}
    for path in (tmp_path, tmp_path / "absent"):
        (problem,) = problems_of(**{name: str(path), "MQTT_TLS": "1", "KAFKA_TLS": "1", **key})
        assert problem.startswith(f"{name}: must be the path of a readable file")


def test_the_users_own_properties_are_merged_and_win():
    own = {
        "linger.ms": 20,
        "socket.keepalive.enable": True,
        "compression.type": "zstd",
        "batch.size": LARGEST_BATCH_BYTES,
    }
    configuration = load(KAFKA_PRODUCER_CONFIG=json.dumps(own)).kafka_configuration()
    assert configuration.items() >= {**own, "socket.keepalive.enable": "true"}.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acks", 1),
        ("request.required.acks", 1),
        ("enable.idempotence", False),
        ("enable.gapless.guarantee", True),
        ("message.timeout.ms", 1),
        ("delivery.timeout.ms", 1),
        ("transactional.id", "x"),
        ("retries", 1),
        ("message.send.max.retries", 1),
        ("max.in.flight", 1),
        ("max.in.flight.requests.per.connection", 1),
        ("bootstrap.servers", "x"),
        ("metadata.broker.list", "x"),
        ("delivery.report.only.error", True),
        ("dr_cb", "x"),
        ("error_cb", "x"),
        ("batch.size", LARGEST_BATCH_BYTES + 1),
        ("batch.size", "1e9"),
        ("batch.size", True),
        ("linger.ms", None),
        ("linger.ms", {}),
        ("Acks", 1),
    ],
)
def test_a_producer_property_that_would_break_a_promise_is_refused(name, value):
    """P1, P2, P3 and P5."""
    (problem,) = problems_of(
        KAFKA_PRODUCER_CONFIG=json.dumps({name: value, "linger.ms": 5} if name != "linger.ms" else {name: value})
    )
    assert problem.startswith("KAFKA_PRODUCER_CONFIG: ")
    assert name in problem or "name of a property is not legal" in problem
    assert "linger.ms" not in problem or name == "linger.ms"


def test_every_refused_producer_property_is_in_the_report():
    (problem,) = problems_of(KAFKA_PRODUCER_CONFIG='{"acks": 0, "retries": 0}')
    assert "acks is not allowed: " in problem
    assert "retries is not allowed: " in problem


@pytest.mark.parametrize("changes", [{"KAFKA_TLS": "true", **SCRAM}, OIDC], ids=["SCRAM", "OIDC"])
def test_librdkafka_knows_the_properties(changes):
    nowhere = {"KAFKA_BROKER": "127.0.0.1:1", "KAFKA_PRODUCER_CONFIG": '{"socket.nagle.disable": true}'}
    if "SASL_SSL" in changes:
        nowhere["SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI"] = "http://127.0.0.1:1/token"
    configuration = load(**{**changes, **nowhere}).kafka_configuration()
    confluent_kafka.Producer(configuration, logger=logging.getLogger("silent"))
    with pytest.raises(confluent_kafka.KafkaException, match="No such configuration property"):
        confluent_kafka.Producer({**configuration, "no.such.property": 1})


def test_no_section_replaces_a_validator_of_another():
    sections = [section for section in Settings.__mro__ if issubclass(section, Section)]
    own = [
        name
        for section in sections
        for name in section.__pydantic_decorators__.field_validators
        if name in vars(section)
    ]
    assert len(own) == len(set(own)) == len(Settings.__pydantic_decorators__.field_validators)


# ---- the documents


def test_the_example_file_is_the_generated_one():
    assert (REPOSITORY / ".env.example").read_text(encoding="utf-8") == environment_example()


def test_the_example_loads_when_the_required_variables_are_filled_in(in_directory):
    text = environment_example()
    for name, value in REQUIRED.items():
        if name not in ("RUN_MODE", "TOPIC_LIST"):
            assert f"\n{name}=\n" in text
            text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    (in_directory / ".env").write_text(text.replace("\n#TOPIC_LIST=\n", "\nTOPIC_LIST=a/b:kafka-a\n"))
    assert load_settings({}).model_dump() == {**load().model_dump(), "run_mode": "DEVELOP"}


def test_the_defaults_in_the_example_are_what_they_say(in_directory):
    """Every line that is commented out may be taken in without changing anything."""
    lines = environment_example().splitlines()
    taken_in = [line[1:] for line in lines if line.startswith("#") and line[1:].partition("=")[0] in NAMES]
    assert len(taken_in) == len(NAMES) - 3
    (in_directory / ".env").write_text("\n".join(taken_in))
    assert load(RUN_MODE="DEVELOP").model_dump() == {**load().model_dump(), "run_mode": "DEVELOP"}


def test_every_variable_is_described():
    assert sorted(variable.name for variable in variables()) == sorted(NAMES)
    for variable in variables():
        assert variable.description.endswith("."), variable.name


def test_the_module_prints_the_example():
    printed = subprocess.run(
        [sys.executable, "-m", "app.settings"], cwd=REPOSITORY, env=os.environ, capture_output=True, check=True
    )
    assert printed.stdout.decode() == environment_example()


@pytest.mark.parametrize("pattern", ["a/{x}", "a/{{", "a}}/b"])
def test_a_mapping_that_is_written_alike_in_both_lists_is_refused(pattern):
    """P8: its braces are characters in TOPIC_LIST, and two routes had one name, in the metrics too."""
    (problem,) = problems_of(TOPIC_LIST=f"b:k,{pattern}:k", WILDCARD_TOPIC_LIST=f"{pattern}:k")
    assert problem.startswith(
        f"WILDCARD_TOPIC_LIST: {pattern!r} is mapped to the same Kafka topic in TOPIC_LIST, where "
    )
    other = load(TOPIC_LIST=f"{pattern}:k", WILDCARD_TOPIC_LIST=f"{pattern}:other")
    assert [route.mqtt_filter for route in other.routes] == [pattern, parse_pattern(pattern).mqtt_filter]


def test_more_mappings_than_a_reload_or_a_start_should_take_are_refused():
    lists = [",".join(f"{name}/{number}:k" for number in range(MOST_ROUTES // 2)) for name in "ab"]
    assert len(load(TOPIC_LIST=lists[0], WILDCARD_TOPIC_LIST=lists[1]).routes) == MOST_ROUTES
    (problem,) = problems_of(TOPIC_LIST=lists[0], WILDCARD_TOPIC_LIST=f"{lists[1]},x:k")
    assert problem == f"WILDCARD_TOPIC_LIST: must be at most {MOST_ROUTES} mappings together with those of TOPIC_LIST"


def test_an_error_that_no_check_expected_is_told_as_a_wrong_setting_and_without_a_value(monkeypatch, tmp_path):
    """It ended with a traceback and 1, at which systemd starts the worker again, for ever."""
    path = tmp_path / "routes.yaml"
    path.write_text("routes: [{name: a, from: b, to: c}]")
    settings = load(TOPIC_LIST=None, ROUTES_FILE=str(path))

    def unexpected(*_given):
        raise KeyError("7d20e5anary")

    monkeypatch.setattr("app.settings.routes.check_overlaps", unexpected)
    for read in (lambda: load(TOPIC_LIST=None, ROUTES_FILE=str(path)), lambda: with_routes_read_anew(settings)):
        with pytest.raises(SettingsError) as caught:
            read()
        (problem,) = caught.value.problems
        assert re.fullmatch(
            r"the settings cannot be read, as something unexpected happened \(KeyError in unexpected, line \d+ of "
            r"test_settings.py\)",
            problem,
        )
        assert "7d20e5anary" not in "".join(traceback.format_exception(caught.value))


def test_routes_that_no_check_told_apart_are_a_wrong_setting():
    """A start ends with 2, and a reload answers."""
    settings = load(TOPIC_LIST="a:b").model_copy(update={"wildcard_topic_list": "a:c"})
    with pytest.raises(SettingsError, match="WILDCARD_TOPIC_LIST: an MQTT filter is mapped more than once"):
        settings.route_table()
