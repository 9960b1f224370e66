"""TLS towards MQTT and Kafka: what a context of TLS refuses and lets through."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from types import SimpleNamespace

import pytest
import trustme
from confluent_kafka import KafkaError
from cryptography.hazmat.primitives import serialization

from app.errors import SettingsError
from app.kafka.producer import KafkaProducer
from app.kafka.service import KafkaService
from app.settings.tls_context import check_key, tls_context
from tests.unit.test_settings import load, problems_of

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
        service = KafkaService(SimpleNamespace(producer=producer), [])
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
