"""Which texts of the settings are secrets: keys are, certificates beside them are not."""

from __future__ import annotations

import json

import pytest

from app.settings.secret_values import secret_values

BODY = "\n".join(f"MIIB{number:02}{'x9+/' * 14}" for number in range(3))
KEY_BODY = "\n".join(f"MIIE{number:02}{'kQ7z' * 14}" for number in range(3)) + "\nkQ7zkQ7zk=="
EXPLAINED = "# Issuer: CN=An Authority 1\n# Serial: 0123\nCertificate:\n    Version: 3 (0x2)\n            00:af:01:\n"


def block(label: str, body: str, end: str = "\n") -> str:
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".replace("\n", end)


def lines_of(name: str, text: str) -> set[str]:
    """Return the lines that are secrets, of a property's text."""
    secrets = secret_values({"KAFKA_PRODUCER_CONFIG": json.dumps({name: text})}, ("KAFKA_PRODUCER_CONFIG",))
    return {line for secret in secrets for line in secret.splitlines() if line.strip()}


@pytest.mark.parametrize("name", ["ssl.ca.pem", "https.ca.pem", "ssl.certificate.pem", "ssl.key.pem"])
@pytest.mark.parametrize("label", ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE", "X509 CRL"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_a_certificate_is_no_secret(name, label, end):
    assert lines_of(name, block(label, BODY, end)) == set()
    assert lines_of(name, (EXPLAINED + block(label, BODY, end)) * 3) == set()


@pytest.mark.parametrize("name", ["ssl.ca.pem", "https.ca.pem", "ssl.certificate.pem", "ssl.key.pem"])
@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"])
def test_a_key_among_certificates_is_a_secret(name, label):
    key, certificate = block(label, KEY_BODY), block("CERTIFICATE", BODY)
    for text in (key, key + certificate, certificate + key, certificate + key + EXPLAINED + certificate):
        assert set(KEY_BODY.split("\n")) <= lines_of(name, text)
        assert not set(BODY.split("\n")) & lines_of(name, text)


@pytest.mark.parametrize(
    "key",
    [
        block("PRIVATE KEY", KEY_BODY, " "),
        block("PRIVATE KEY", KEY_BODY, "\\n"),
        block("PRIVATE KEY", KEY_BODY).replace("-----END PRIVATE KEY-----", ""),
        block("PRIVATE KEY", KEY_BODY).replace("-----BEGIN PRIVATE KEY-----", ""),
        "RSA PRIVATE KEY\nProc-Type: 4,ENCRYPTED\n\n" + KEY_BODY,
        KEY_BODY,
    ],
    ids=["blanks for line ends", "escaped line ends", "without its end", "without its beginning", "old", "bare"],
)
def test_a_damaged_key_among_certificates_is_a_secret(key):
    certificate = block("CERTIFICATE", BODY)
    for text in (key, key + "\n" + certificate, certificate + key, certificate + key + "\n" + certificate):
        said = "".join(lines_of("ssl.ca.pem", text))
        assert all(line in said for line in KEY_BODY.split("\n"))


@pytest.mark.parametrize(
    "text",
    [
        "canary-71b2 with blanks",
        block("CERTIFICATE", BODY + "\ncanary-71b2"),
        block("CERTIFICATE", BODY).replace("END CERT", "END PRIVATE CERT") + "canary-71b2",
    ],
    ids=["no PEM", "what is no base64 in it", "another end"],
)
def test_what_is_no_certificate_stays_a_secret(text):
    assert "canary-71b2" in "".join(lines_of("ssl.ca.pem", text))


def secrets_in(text: str) -> list[str]:
    return [secret for secret in secret_values({"KAFKA_PRODUCER_CONFIG": text}, ("KAFKA_PRODUCER_CONFIG",)) if secret]


@pytest.mark.parametrize(
    "text", ["canary-71b2", '{"ssl.key.password": "canary-71b2"', '["canary-71b2"]', '"canary-71b2"']
)
def test_what_is_no_json_object_is_a_secret_as_a_whole(text):
    assert secrets_in(text) == [text]


def test_of_a_json_object_its_texts_are_secrets_and_it_is_none_itself_with_what_is_public_in_it():
    """All authorities of a system in one line of JSON were a secret of 220,000 characters, which took a second."""
    certificate = block("CERTIFICATE", BODY) * 100
    text = {
        "ssl.ca.pem": certificate,
        "acks": "all",
        "linger.ms": 5,
        "client.rack": "canary-1",
        "x": {"y": ["canary-2"]},
    }
    assert [secret for secret in secrets_in(json.dumps(text, indent=1)) if secret.strip()] == ["canary-1", "canary-2"]
