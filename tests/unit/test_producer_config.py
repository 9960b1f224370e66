"""KAFKA_PRODUCER_CONFIG takes what is on a list, and what weakens TLS is shown; no brokers are needed."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import confluent_kafka
import pytest

from app.errors import SettingsError
from app.kafka.producer import KafkaProducer
from app.kafka.service import KafkaService
from app.pages.verdict import Picture, findings
from app.settings import WAYS, weaknesses
from app.settings.producer_properties import ALIASES, ALLOWED, NEEDS_TLS, File, Flag, Number, Words
from tests.support.dispatched import Dispatched, never_held_up
from tests.unit.test_settings import OIDC, SCRAM, load, problems_of

CANARY = "canary-71b2"
TLS = {"KAFKA_TLS": "true"}
UNCHECKED = {"enable.ssl.certificate.verification": False}
# Each takes away a promise: it runs code, or a command; sends tokens, passwords or messages elsewhere or in clear text.
HOSTILE = {
    "plugin.library.paths": "/tmp/evil.so",
    "interceptors": "x",
    "ssl.engine.location": "/tmp/evil.so",
    "ssl.engine.id": "dynamic",
    "ssl.providers": "/tmp/evil,default",
    "ssl_engine_callback_data": "1",
    "ssl_ca": "1",
    "security.protocol": "plaintext",
    "sasl.mechanisms": "PLAIN",
    "sasl.mechanism": "GSSAPI",
    "sasl.username": "x",
    "sasl.password": "x",
    "sasl.kerberos.kinit.cmd": "touch /tmp/x",
    "sasl.kerberos.principal": "$(touch /tmp/x)",
    "sasl.kerberos.keytab": "`touch /tmp/x`",
    "sasl.kerberos.service.name": "x",
    "sasl.oauthbearer.token.endpoint.url": "http://evil/",
    "sasl.oauthbearer.method": "default",
    "sasl.oauthbearer.config": "principal=admin",
    "sasl.oauthbearer.assertion.file": "/etc/shadow",
    "sasl.oauthbearer.assertion.private.key.file": "/etc/shadow",
    "sasl.oauthbearer.metadata.authentication.type": "azure_imds",
    "sasl.oauthbearer.client.credentials.client.secret": "x",
    "enable.sasl.oauthbearer.unsecure.jwt": True,
    "metadata.broker.list": "evil:9092",
    "bootstrap.servers": "evil:9092",
    "test.mock.num.brokers": 1,
    "test.mock.broker.rtt": 1,
    "topic.blacklist": ".*",
    "default.topic.config": {"acks": 0},
    "default.topic.config.acks": 0,
    "request.required.acks": 0,
    "enabled_events": 255,
    "log_cb": "x",
    "logger": "x",
    "opaque": "x",
    "internal.termination.signal": 9,
    "api.version.request": False,
    "broker.version.fallback": "0.8",
    "a.property.of.tomorrow": 1,
}


def sentence(**properties):
    """Return what is said of properties that are refused."""
    (problem,) = problems_of(**TLS, KAFKA_PRODUCER_CONFIG=json.dumps(properties))
    return problem


@pytest.mark.parametrize("name", HOSTILE)
def test_a_property_that_loads_code_or_leads_elsewhere_is_refused_by_name(name):
    said = sentence(**{name: HOSTILE[name], "linger.ms": 5})
    assert f"{name} is not allowed: " in said
    assert "linger.ms" not in said
    assert str(HOSTILE[name]) not in said.replace(name, "") or len(str(HOSTILE[name])) < 5


@pytest.mark.parametrize(
    "name",
    [
        "Plugin.Library.Paths",
        " plugin.library.paths",
        "plugin.library.paths\0",
        "plugin.library.paths ",
        "",
        "\uff41cks",
    ],
)
def test_another_spelling_of_a_name_is_no_way_around_the_list(name):
    said = sentence(**{name: "x"})
    assert "the name of a property is not legal" in said
    assert not name.strip() or name not in said


def test_librdkafka_has_no_property_that_is_allowed_without_being_on_the_list(tmp_path):
    """Its own list is asked for, so that one that is new there is seen here, and refused meanwhile."""
    known = {*properties_of_librdkafka(tmp_path / "properties")}
    assert len(known) > 150
    assert set(ALLOWED) <= known
    for name in known - ALLOWED.keys():
        assert f"{name} is not allowed: " in sentence(**{name: "1"})


def properties_of_librdkafka(path):
    """Have librdkafka write its table of properties into a file, and return the names."""
    (library_path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*.so*")
    library, standard = ctypes.CDLL(str(library_path)), ctypes.CDLL(None)
    standard.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(standard.fopen(str(path).encode(), b"w"))
    library.rd_kafka_conf_properties_show(file)
    standard.fclose(file)
    return re.findall(r"^([a-z][a-z0-9._]+) +\|", path.read_text(), re.MULTILINE)


# librdkafka compares each of these with another one.
NEIGHBOURS = {
    "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 3_600_000, "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 300_000,
}  # fmt: skip


def lowest_and_highest(kind):
    if isinstance(kind, Number):
        return kind.lowest, kind.highest
    if isinstance(kind, Flag):
        return True, "FALSE"
    return kind.words[0], kind.words[-1].upper()


@pytest.mark.parametrize("name", [name for name, kind in ALLOWED.items() if isinstance(kind, Number | Flag | Words)])
def test_librdkafka_takes_both_ends_of_what_is_allowed_and_nothing_beyond_is(name):
    for value in lowest_and_highest(ALLOWED[name]):
        configuration = load(**TLS, KAFKA_PRODUCER_CONFIG=json.dumps({name: value})).kafka_configuration()
        own = {
            "bootstrap.servers": "127.0.0.1:1",
            **NEIGHBOURS,
            ALIASES.get(name, name): configuration[ALIASES.get(name, name)],
        }
        if name == "debug":
            own["log_level"] = 0
        confluent_kafka.Producer(own, logger=logging.getLogger("silent"))
    for value in beyond(ALLOWED[name]):
        said = sentence(**{name: value})
        assert f"{name} must be {ALLOWED[name].allowed}" in said


def beyond(kind):
    """Return values that a kind does not allow; librdkafka would take some of them in silence."""
    common = [None, {}, [], {"a": 1}, "", "x\0y", 2**63, "9" * 5000]
    if isinstance(kind, Number):
        return [*common, kind.lowest - 1, kind.highest + 1, "0x10", True, "1e3", "1,5", "5 ms", "٣"]
    if isinstance(kind, Flag):
        return [*common, 2, -1, "yes", "t"]
    return [*common, 1, True, "random"]


@pytest.mark.parametrize("name", [name for name, kind in ALLOWED.items() if isinstance(kind, File)])
def test_a_pipe_a_device_or_nothing_in_the_place_of_a_file_does_not_hang_the_start(name, tmp_path):
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_text("x")
    for value in (str(pipe), "/dev/zero", "/dev/tty", str(tmp_path / "absent"), f"{file}\0", f"{file}/", 5, True):
        said = sentence(**{name: value})
        assert f"{name} must be the path of a readable, regular file" in said
        assert str(tmp_path) not in said
    sentences = [str(tmp_path), "probe"]
    assert load(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps({name: str(file)}))
    if ALLOWED[name].directories:
        for value in sentences:
            assert load(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps({name: value}))
    else:
        assert [name in sentence(**{name: value}) for value in sentences] == [True, True]


def test_a_text_with_nul_is_refused_as_librdkafka_would_read_half_of_it():
    assert "client.rack must be" in sentence(**{"client.rack": f"{CANARY}\0x"})
    assert "client.rack must be" in sentence(**{"client.rack": f"{CANARY}\n"})
    assert "client.rack must be" in sentence(**{"client.rack": CANARY * 100})
    assert "ssl.ca.pem must be" in sentence(**{"ssl.ca.pem": "\0"})
    assert CANARY not in sentence(**{"client.rack": f"{CANARY}\0x"})
    assert load(**TLS, KAFKA_PRODUCER_CONFIG=json.dumps({"ssl.ca.pem": "a\nb\n"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"linger.ms": 1, "linger.ms": 2}', "linger.ms is set more than once"),
        ('{"linger.ms": 1, "queue.buffering.max.ms": 2}', "linger.ms is set more than once"),
        ('{"compression.codec": "lz4", "compression.type": "gzip"}', "compression.type is set more than once"),
        ('{"linger.ms": NaN}', "must be a JSON object"),
        ('{"linger.ms": 20', 'must be a JSON object, {"PROPERTY": VALUE, ...}, of librdkafka properties; d'),
        ('{"linger.ms": -Infinity}', "must be a JSON object"),
        ('{"linger.ms": 1e999}', "linger.ms must be a number from 0 to 900000"),
        ('{"linger.ms": ' + "9" * 5000 + "}", "must be a JSON object"),
        ("[" * 10_000, "must be a JSON object"),
        ('{"a":' * 10_000, "must be a JSON object"),
        ('[["linger.ms", 1]]', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"lingr.ms": 1}', "lingr.ms is not allowed: linger.ms is, and docs/kafka-client.md has the list"),
    ],
)
def test_what_is_no_object_or_says_a_thing_twice_is_refused_in_a_sentence(text, said):
    (problem,) = problems_of(KAFKA_PRODUCER_CONFIG=text)
    assert said in problem
    assert len(problem) < 400


def test_a_property_by_its_other_name_wins_over_the_setting_all_the_same():
    configuration = load(KAFKA_COMPRESSION="gzip", KAFKA_PRODUCER_CONFIG='{"compression.codec": "zstd"}')
    assert configuration.kafka_configuration()["compression.type"] == "zstd"


@pytest.mark.parametrize("name", sorted(NEEDS_TLS))
def test_a_property_of_tls_without_tls_does_not_make_believe_that_there_is_any(name):
    good = {"ssl.endpoint.identification.algorithm": "https", "enable.ssl.certificate.verification": True}
    text = json.dumps({name: good.get(name, __file__)})
    (problem,) = problems_of(KAFKA_PRODUCER_CONFIG=text)
    assert problem == f"KAFKA_PRODUCER_CONFIG: {name} works only with KAFKA_TLS=true or SASL_SSL=true"
    assert load(**TLS, KAFKA_PRODUCER_CONFIG=text)
    assert load(**OIDC, KAFKA_PRODUCER_CONFIG=text)


def test_a_property_of_the_token_endpoint_needs_sasl_ssl():
    text = json.dumps({"sasl.oauthbearer.scope": "api://kafka/.default"})
    (problem,) = problems_of(**TLS, KAFKA_PRODUCER_CONFIG=text)
    assert "sasl.oauthbearer.scope works only with SASL_SSL=true" in problem
    assert load(**OIDC, KAFKA_PRODUCER_CONFIG=text)


# ---- what weakens TLS


def with_properties(**properties):
    return {**TLS, "KAFKA_PRODUCER_CONFIG": json.dumps(properties)}


PASSWORD = {"MQTT_USER_NAME": "u", "MQTT_USER_PASSWORD": "p"}
HTTP = {**OIDC, "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": "http://login.example.com/token"}


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        (TLS, []),
        (with_properties(**UNCHECKED), ["kafka_certificate_unchecked"]),
        (with_properties(**{"enable.ssl.certificate.verification": " FALSE "}), ["kafka_certificate_unchecked"]),
        (with_properties(**{"enable.ssl.certificate.verification": 0}), ["kafka_certificate_unchecked"]),
        (with_properties(**{"enable.ssl.certificate.verification": True}), []),
        (with_properties(**{"ssl.endpoint.identification.algorithm": "None"}), ["kafka_name_unchecked"]),
        (with_properties(**{"ssl.endpoint.identification.algorithm": "https"}), []),
        (with_properties(**{"ssl.cipher.suites": "ALL:@SECLEVEL=0"}), ["kafka_weak_ciphers"]),
        (with_properties(**{"ssl.cipher.suites": "ECDHE-ECDSA-AES128-GCM-SHA256,RC4-SHA"}), ["kafka_weak_ciphers"]),
        (with_properties(**{"ssl.cipher.suites": "eNULL"}), ["kafka_weak_ciphers"]),
        (with_properties(**{"ssl.cipher.suites": "HIGH:!aNULL:!MD5:-RC4"}), []),
        (with_properties(**{"ssl.sigalgs.list": "RSA+SHA1"}), ["kafka_weak_ciphers"]),
        (with_properties(**{"ssl.sigalgs.list": "ECDSA+SHA256:rsa_pss_rsae_sha512"}), []),
        ({**OIDC, "KAFKA_PRODUCER_CONFIG": json.dumps(UNCHECKED)}, ["kafka_certificate_unchecked"]),
        (SCRAM, ["kafka_sign_in_in_clear"]),
        ({**SCRAM, "KAFKA_SASL_MECHANISM": "PLAIN"}, ["kafka_sign_in_in_clear"]),
        ({**SCRAM, "KAFKA_SASL_MECHANISM": "PLAIN", **TLS}, []),
        ({**SCRAM, "KAFKA_BROKER": "localhost:9092,[::1]:9093,127.0.0.2"}, []),
        ({**SCRAM, "KAFKA_BROKER": "localhost:9092,10.0.0.1"}, ["kafka_sign_in_in_clear"]),
        (OIDC, []),
        (HTTP, ["token_secret_in_clear"]),
        ({**HTTP, "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": "http://127.0.0.1:1/token"}, []),
        (PASSWORD, ["mqtt_password_in_clear"]),
        ({**PASSWORD, "MQTT_TLS": "true"}, []),
        ({**PASSWORD, "MQTT_BROKER_URL": "mqtts://mqtt.example.com"}, []),
        ({**PASSWORD, "MQTT_BROKER_URL": "mqtt://[::1]"}, []),
    ],
)  # fmt: skip
def test_what_weakens_tls_is_found_and_nothing_else_is(changes, ways):
    settings = load(**changes)
    found = weaknesses(settings)
    assert [weakness.way for weakness in found] == ways
    assert set(ways) <= set(WAYS)


WEAK_LISTS = [
    f"{before}{separator}{weak}{separator}@SECLEVEL=0"
    for separator in (":", ";", ",", " ", ";;", ", ", " ; ")
    for before in ("!SSLv2", "-SSLv2", "+HIGH", "HIGH")
    for weak in ("NULL-SHA256", "aNULL", "eNULL")
]


@pytest.mark.parametrize(
    "ciphers",
    [
        *WEAK_LISTS,
        "!SSLv2;NULL-SHA256",
        "!aNULL;RC4-SHA",
        "-3DES;3DES",
        "DEFAULT;eNULL",
        "DEFAULTeNULL",
        "HIGH;@SECLEVEL=1",
        "!SSLv2;@SECLEVEL=0;kRSA",  # which has NULL-SHA256 in it
        "!SSLv2;@SECLEVEL=0;SHA256",
        "kRSA+eNULL",
        "@STRENGTH;@SECLEVEL=0;HIGH",
        "NO-SUCH;@SECLEVEL=0",
    ],
)
def test_weak_ciphers_are_found_behind_everything_that_openssl_takes_for_a_separator(ciphers):
    settings = load(**with_properties(**{"ssl.cipher.suites": ciphers}))
    assert [weakness.way for weakness in weaknesses(settings)] == ["kafka_weak_ciphers"]


@pytest.mark.parametrize(
    "ciphers",
    [
        "HIGH;!aNULL;!MD5;-RC4",
        "DEFAULT",
        "DEFAULT!MD5",
        "HIGH,+3DES !eNULL",
        "@SECLEVEL=3;HIGH",
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "ECDHE-RSA-AES256-GCM-SHA384;ECDHE-RSA-CHACHA20-POLY1305",
        "SUITEB128",
        "kRSA",  # without a lower level OpenSSL uses none of it that does not encrypt
    ],
)
def test_ciphers_that_are_forbidden_or_not_used_are_no_weakness(ciphers):
    assert weaknesses(load(**with_properties(**{"ssl.cipher.suites": ciphers}))) == ()


@pytest.mark.parametrize(
    ("name", "text", "is_weak"),
    [
        ("ssl.sigalgs.list", "RSA+SHA256:ecdsa_sha1", True),
        ("ssl.sigalgs.list", "?rsa_pkcs1_sha1", True),
        ("ssl.sigalgs.list", "rsa_pkcs1_sha256:ed25519", False),
        ("ssl.curves.list", "X25519:secp160r1", True),
        ("ssl.curves.list", "P-256/P-192", True),
        ("ssl.curves.list", "?sect163k1", True),
        ("ssl.curves.list", "DEFAULT:-secp192r1", False),
        ("ssl.curves.list", "*X25519MLKEM768/X25519:P-256:brainpoolP512r1:ffdhe2048", False),
    ],
)
def test_weak_signatures_and_curves_are_found_in_lists_of_every_form(name, text, is_weak):
    ways = [weakness.way for weakness in weaknesses(load(**with_properties(**{name: text})))]
    assert ways == ["kafka_weak_ciphers"] * is_weak


def test_keys_of_tls_that_are_written_into_a_file_are_a_weakness(monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", "/tmp/keys")
    assert [weakness.way for weakness in weaknesses(load(MQTT_TLS="true"))] == ["mqtt_keys_written"]
    assert weaknesses(load()) == (), "without TLS there are none"


def test_what_weakens_tls_is_red_on_the_page_though_all_else_is_well():
    found = weaknesses(load(**with_properties(**UNCHECKED), **PASSWORD))
    said = findings(Picture(weaknesses=found))
    assert [finding.level for finding in said] == ["trouble", "trouble"]
    assert said[0].text.startswith("TLS is weakened: Kafka's certificate is not checked")
    assert "KAFKA_CA_FILE" in said[0].advice
    assert "MQTT_TLS=true" in said[1].advice


# ---- what librdkafka alone can refuse


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"KAFKA_CA_FILE": __file__},
            "KAFKA_CA_FILE (or ssl.ca.location in KAFKA_PRODUCER_CONFIG): must be a PEM file",
        ),
        ({"KAFKA_CERT_FILE": __file__, "KAFKA_KEY_FILE": __file__}, "KAFKA_CERT_FILE (or ssl.certificate.location"),
        (with_properties(**{"ssl.key.location": __file__}), "KAFKA_KEY_FILE (or ssl.key.location"),
        (
            with_properties(**{"ssl.cipher.suites": CANARY}),
            "refuses the property ssl.cipher.suites; OpenSSL says: no c",
        ),
        (
            with_properties(**{"ssl.ca.pem": CANARY}),
            "KAFKA_PRODUCER_CONFIG: librdkafka refuses the property ssl.ca.pem",
        ),
        (with_properties(**{"ssl.keystore.location": __file__, "ssl.keystore.password": CANARY}), "ssl.keystore.locat"),
        (with_properties(**{"reconnect.backoff.ms": 20_000}), "the property reconnect.backoff.max.ms"),
    ],
)
def test_what_librdkafka_refuses_at_the_start_is_told_by_the_setting_that_it_comes_from(changes, problem, monkeypatch):
    monkeypatch.setattr("app.kafka.service.WAIT_SECONDS", 0)  # a file of a fresh checkout may be one that is replaced
    producer = KafkaProducer(load(**{**changes, **TLS}).kafka_configuration())
    service = KafkaService(SimpleNamespace(producer=producer), Dispatched().reports, [], never_held_up())
    with pytest.raises(SettingsError) as refused:
        asyncio.run(service.on_start())
    assert problem in str(refused.value)
    assert CANARY not in str(refused.value)
    assert __file__ not in str(refused.value)
