"""The certificates, keys and authorities for the MQTT broker, and authorities in general, as OpenSSL takes them.

They are tried with the other settings, so that a file of the wrong kind is named before anything is connected, and read
anew for each connection, as they may be replaced.
"""

import ssl
from pathlib import Path

CA_ALLOWED = "must be a PEM file with certificates of authorities"
KEY_ALLOWED = "must be the private key of MQTT_CERT_FILE, both in PEM, and the key not encrypted"


class TlsFileError(OSError):
    """What is in a file is of no use; the text names the setting and what is allowed."""


def tls_context(ca_file: Path | None, certificate_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Make a context that verifies the broker's name and certificate.

    Raises:
        TlsFileError: What is in a file is of no use.
        OSError: A file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise TlsFileError(f"MQTT_CA_FILE {CA_ALLOWED}{_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file:
        try:
            # Without a password OpenSSL would ask for that of an encrypted key on the terminal, and wait.
            context.load_cert_chain(certificate_file, key_file, password=b"")
        except ssl.SSLError as error:
            raise TlsFileError(f"MQTT_KEY_FILE {KEY_ALLOWED}{_reason(error)}") from None
    return context


def check_authorities(ca_file: Path) -> None:
    """Try a file with authorities, of whichever setting; it can be read.

    Raises:
        ValueError: It is of no use; with a sentence that says what is allowed.
    """
    _check(ca_file, None, None)


def check_key(certificate_file: Path | None, key_file: Path) -> None:
    """Try a certificate with its key; they can be read.

    Raises:
        ValueError: They are of no use; with a sentence that says what is allowed.
    """
    _check(None, certificate_file, key_file)


def _check(*files: Path | None) -> None:
    try:
        tls_context(*files)
    except TlsFileError as error:
        raise ValueError(str(error).partition(" ")[2]) from None


def _reason(error: ssl.SSLError) -> str:
    """Return what OpenSSL says of it, if anything; it has nothing of the file in it."""
    return f"; OpenSSL says: {error.reason}" if error.reason else ""
