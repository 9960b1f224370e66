"""TLS towards MQTT and Kafka: what a context of TLS refuses and lets through."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
import trustme
from confluent_kafka import KafkaError, KafkaException
from cryptography.hazmat.primitives import serialization
from paho.mqtt.enums import MQTTProtocolVersion

from app.errors import SettingsError
from app.kafka.producer import KafkaProducer
from app.kafka.replaced_files import check_files
from app.kafka.service import KafkaService
from app.mqtt.connection import ConnectionSettings
from app.settings.producer_properties import ALLOWED, File
from app.settings.tls_context import check_key, tls_context
from tests.support.dispatched import Dispatched, never_held_up
from tests.unit.test_settings import OIDC, load, problems_of

SECRET = "opensesame-5a"


def write_certificates(directory, authority):
    """Write what a server and its clients need into the same files as before."""
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued.private_key_pem.write_to_path(directory / "server.key")
    (directory / "server.pem").write_bytes(b"".join(chain.bytes() for chain in issued.cert_chain_pems))


def test_a_certificate_that_is_replaced_before_its_key_is_of_no_use_until_then_and_ends_nothing(tmp_path, caplog):
    """Files that belong together are replaced one after the other."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_certificates(tmp_path / name, trustme.CA())
    for file in ("ca.pem", "server.pem", "server.key"):
        (tmp_path / file).symlink_to(tmp_path / "old" / file)
    locations = {"ssl.ca": "ca.pem", "ssl.certificate": "server.pem", "ssl.key": "server.key"}
    configuration = {f"{name}.location": str(tmp_path / file) for name, file in locations.items()}
    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **configuration})
    producer.open()
    trouble = KafkaError(KafkaError._SSL, "the handshake failed")
    producer._on_error(trouble)
    assert not producer.is_fatal, "nothing was replaced"
    for file in ("server.pem", "server.key"):
        (tmp_path / file).unlink()
        producer._on_error(trouble)
        (tmp_path / file).symlink_to(tmp_path / "new" / file)
        producer._on_error(trouble)
        assert producer.is_fatal
        producer.replace()
        assert producer.is_fatal == (file == "server.pem")
    assert "KAFKA_CERT_FILE changed" in caplog.text
    assert "does not start with the files" in caplog.text
    producer.close()


# ---- files that everybody may write to since the start


def write_all(directory, authority):
    """Write the three files of a client; return their paths by the second word of their settings."""
    write_certificates(directory, authority)
    return {"CA": directory / "ca.pem", "CERT": directory / "server.pem", "KEY": directory / "server.key"}


@pytest.mark.parametrize("which", ["CA", "CERT", "KEY"])
def test_a_file_that_everybody_may_write_to_is_not_read_anew_for_an_mqtt_connection(which, tmp_path):
    """What a stranger put there would vouch for his server, which would be sent the password."""
    files = write_all(tmp_path, trustme.CA())
    options = {"tls": True, "ca_file": files["CA"], "certificate_file": files["CERT"], "key_file": files["KEY"]}
    settings = ConnectionSettings(
        "127.0.0.1", 1, "bridge", MQTTProtocolVersion.MQTTv5,
        keepalive_seconds=30, session_expiry_seconds=60, receive_maximum=10, largest_packet_bytes=1000, **options,
    )  # fmt: skip
    opened = []
    settings.opening.open = lambda _attempt, context: opened.append(context)
    client = SimpleNamespace(connect_over=lambda *_, **__: None, socket=lambda: None)
    files[which].chmod(0o666)
    with pytest.raises(OSError, match=f"MQTT_{which}_FILE is not used: '{files[which]}': everybody on this host may w"):
        settings.connect(client, None)
    assert not opened, "nothing is connected"
    files[which].chmod(0o644)
    with pytest.raises(ConnectionResetError):  # of the client that is none
        settings.connect(client, None)
    assert len(opened) == 1, "and later it is tried again"


LOCATIONS = {"ssl.ca.location": "CA", "ssl.certificate.location": "CERT", "ssl.key.location": "KEY"}
SSL_FAILED = KafkaError(KafkaError._SSL, "the handshake failed")


@pytest.fixture
def kafka_files(tmp_path):
    """Files of a client of Kafka, and a producer that has read them."""
    files = write_all(tmp_path, trustme.CA())
    locations = {name: str(files[which]) for name, which in LOCATIONS.items()}
    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **locations})
    producer.open()
    yield files, producer
    producer.close()


@pytest.mark.parametrize("which", LOCATIONS.values())
def test_a_file_that_everybody_may_write_to_replaces_none_that_librdkafka_has_read(which, kafka_files, caplog):
    files, producer = kafka_files
    files[which].chmod(0o666)
    write_all(files[which].parent, trustme.CA())
    for _ in range(3):
        producer._on_error(SSL_FAILED)
    assert not producer.is_fatal, "it keeps what it has"
    assert caplog.text.count(f" is not used: '{files[which]}': everybody on this host may write to it") == 1
    files[which].chmod(0o644)
    producer._on_error(SSL_FAILED)
    assert producer.is_fatal
    producer.replace()
    assert not producer.is_fatal, "the new ones are read"


@pytest.mark.parametrize("which", LOCATIONS.values())
def test_no_client_of_kafka_is_made_with_a_file_that_everybody_may_write_to(which, kafka_files, caplog):
    """Each client reads them, also those that ask for topics, and each of them signs in."""
    files, producer = kafka_files
    files[which].chmod(0o666)
    for ask in (producer.ask_topics, producer.ask_partitions):
        with pytest.raises(KafkaException, match=rf"KAFKA_{which}_FILE \(or ssl\.\S+ in .*\) is not used"):
            ask(["a"], 0.1)
    assert producer.ask_addresses("a", 0.1) == set()
    producer.mark_failed(SSL_FAILED)
    producer.replace()
    assert producer.is_fatal, "it waits"
    assert f" is not used: '{files[which]}': everybody on this host may write to it" in caplog.text
    files[which].chmod(0o644)
    producer.replace()
    assert not producer.is_fatal


def test_no_worker_starts_with_a_certificate_that_everybody_may_write_to(kafka_files, monkeypatch):
    """It looks for some seconds, here a fraction of one, as the file may be on its way, and ends."""
    monkeypatch.setattr("app.kafka.service.LOOK_SECONDS", 0.02)
    monkeypatch.setattr("app.kafka.service.WAIT_SECONDS", 0.1)
    files, producer = kafka_files
    files["CERT"].chmod(0o666)
    with pytest.raises(SettingsError, match=r"KAFKA_CERT_FILE .*is not used"):
        asyncio.run(
            KafkaService(SimpleNamespace(producer=producer), Dispatched().reports, [], never_held_up()).on_start()
        )


@pytest.mark.parametrize("name", [name for name, kind in ALLOWED.items() if isinstance(kind, File)])
def test_each_file_of_the_kafka_client_is_looked_at_before_it_is_read(name, tmp_path):
    file = tmp_path / "some.pem"
    file.write_text("pem")
    check_files({name: str(file)})
    check_files({name: str(tmp_path / "absent")})  # of which librdkafka tells
    file.chmod(0o602)
    with pytest.raises(KafkaException, match=r"is not used: .*some\.pem': everybody on this host may write to it"):
        check_files({name: str(file)})
    properties = json.dumps({name: str(file)})
    (problem,) = problems_of(**OIDC, KAFKA_PRODUCER_CONFIG=properties)
    assert f"{name} must be the path of a readable, regular file that not everybody may write to" in problem


@pytest.mark.parametrize(
    "name", [name for name, kind in ALLOWED.items() if isinstance(kind, File) and kind.directories]
)
def test_a_directory_of_authorities_in_which_everybody_may_write_is_refused(name, tmp_path):
    """OpenSSL looks into it at each handshake, for files named by the hash of an authority's name."""
    directory, elsewhere = tmp_path / "authorities", tmp_path / "elsewhere"
    directory.mkdir()
    properties = {name: str(directory)}

    def refused():
        problem = problems_of(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps(properties))[0]
        with pytest.raises(KafkaException, match="is not used: "):
            check_files(properties)
        return f"{name} must be the path of" in problem

    (directory / "0a1b2c3d.0").write_text("pem")
    (directory / "0a1b2c3d.1").symlink_to("nowhere")
    (directory / "README").write_text("not read")
    (directory / "README").chmod(0o666)
    assert load(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps(properties))
    check_files(properties)
    for mode in (0o777, 0o1777, 0o703):
        directory.chmod(mode)
        assert refused()
    directory.chmod(0o755)
    (directory / "0a1b2c3d.0").chmod(0o646)
    assert refused()
    (directory / "0a1b2c3d.0").chmod(0o644)
    elsewhere.write_text("pem")
    elsewhere.chmod(0o666)
    for entry in ("0a1b2c3d.2", "0a1b2c3d.r0"):
        (directory / entry).symlink_to(elsewhere)
        assert refused()
        (directory / entry).unlink()
    os.mkfifo(directory / "0a1b2c3d.3")
    assert refused(), "a pipe, for which librdkafka would wait"


# ---- files that are of no use


def test_a_start_between_the_replacing_of_a_certificate_and_of_its_key_waits_for_both(tmp_path, monkeypatch):
    """Else it would end for a wrong setting, after which nobody starts it again; what is old is refused at once."""
    monkeypatch.setattr("app.settings.tls_context.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("app.kafka.service.LOOK_SECONDS", 0.05)
    for module in ("app.settings.tls_context", "app.kafka.service"):
        monkeypatch.setattr(f"{module}.WAIT_SECONDS", 60.0)
    authority = trustme.CA()
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    old, new = authority.issue_cert("a.example"), authority.issue_cert("a.example")
    kafka = {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key), "security.protocol": "SSL"}

    def start_mqtt():
        check_key(certificate, key)

    def start_kafka():
        producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, **kafka})
        service = KafkaService(SimpleNamespace(producer=producer), Dispatched().reports, [], never_held_up())
        monkeypatch.setattr(service, "add_future", lambda future: future.close())
        asyncio.run(service.on_start())
        producer.close()

    for start, error in ((start_mqtt, ValueError), (start_kafka, SettingsError)):
        new.cert_chain_pems[0].write_to_path(certificate)
        old.private_key_pem.write_to_path(key)
        timer = threading.Timer(0.3, new.private_key_pem.write_to_path, [key])
        timer.start()
        start()
        timer.join()
        old.private_key_pem.write_to_path(key)
        for file in (certificate, key):
            os.utime(file, (time.time() - 3600,) * 2)
        began = time.monotonic()
        with pytest.raises(error):
            start()
        assert time.monotonic() - began < 30


def test_files_that_are_of_no_use_for_mqtt_are_wrong_settings_and_nobody_is_asked_for_a_password(tmp_path, monkeypatch):
    """OpenSSL asks on the terminal for the password of an encrypted key, and waits, where nobody may be."""
    monkeypatch.setattr("app.settings.tls_context.WAIT_SECONDS", 0)
    authority = trustme.CA()
    issued, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "a.pem")
    issued.private_key_pem.write_to_path(tmp_path / "a.key")
    other.private_key_pem.write_to_path(tmp_path / "b.key")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(SECRET.encode())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "encrypted.key").write_bytes(key.private_bytes(pem, form, encryption))

    def files(ca, certificate, private):
        names = {"MQTT_CA_FILE": ca, "MQTT_CERT_FILE": certificate, "MQTT_KEY_FILE": private}
        return {"MQTT_TLS": "true", **{name: str(tmp_path / file) for name, file in names.items()}}

    load(**files("ca.pem", "a.pem", "a.key"))
    (problem,) = problems_of(**files("a.key", "a.pem", "a.key"))
    assert problem.startswith("MQTT_CA_FILE: must be a PEM file with certificates of authorities")
    for private in ("b.key", "encrypted.key", "ca.pem"):
        (problem,) = problems_of(**files("ca.pem", "a.pem", private))
        assert problem.startswith(
            "MQTT_KEY_FILE: must be the private key of MQTT_CERT_FILE, both in PEM, and the key n"
        )
    with pytest.raises(OSError, match=r"^MQTT_KEY_FILE must be the private key of MQTT_CERT_FILE"):
        tls_context(tmp_path / "ca.pem", tmp_path / "a.pem", tmp_path / "encrypted.key")


@pytest.mark.parametrize(
    "name", [name for name, kind in ALLOWED.items() if isinstance(kind, File) and kind.directories]
)
@pytest.mark.parametrize("place", ["authorities:old", "a:b/authorities", "authorities:", ":authorities"])
def test_a_directory_of_authorities_with_a_colon_in_its_path_is_refused(place, name, tmp_path, monkeypatch):
    """OpenSSL takes it for a list, and reads another directory than the one whose rights were looked at."""
    (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / place), place):
        properties = {name: path}
        problem = problems_of(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps(properties))[0]
        assert "no colon in its path, at which OpenSSL would divide it into other directories" in problem
        with pytest.raises(KafkaException, match=r"is not used: .*must have no colon in its path, at which OpenSSL"):
            check_files(properties)
    (tmp_path / "link").symlink_to(tmp_path / place)
    (tmp_path / place / "one.pem").write_text("pem")
    for path in (tmp_path / "link", tmp_path / place / "one.pem"):  # of a file no list is made
        assert load(**OIDC, KAFKA_PRODUCER_CONFIG=json.dumps({name: str(path)}))
        check_files({name: str(path)})


@pytest.mark.parametrize("name", ["MQTT_CA_FILE", "KAFKA_CA_FILE", "SASL_OAUTHBEARER_CA_FILE"])
def test_the_other_settings_of_authorities_take_no_directory(name, tmp_path):
    changes = {"MQTT_TLS": "true"} if name.startswith("MQTT") else OIDC
    (problem,) = problems_of(**changes, **{name: str(tmp_path)})
    assert problem.startswith(f"{name}: must be the path of a readable file")
