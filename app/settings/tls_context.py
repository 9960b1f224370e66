"""The certificates, keys and authorities for the MQTT broker, and authorities in general, as OpenSSL takes them.

They are tried with the other settings, so that a file of the wrong kind is named before anything is connected, and read
anew for each connection, as they may be replaced. Each time they must not be such that everybody may write to them.
"""

import ssl
import time
from pathlib import Path

from app.settings.files import check_file, name_shown

CA_ALLOWED = "must be a PEM file with certificates of authorities"
KEY_ALLOWED = "must be the private key of MQTT_CERT_FILE, both in PEM, and the key not encrypted"

# Who replaces a certificate and its key writes one after the other. A start in between would end for wrong settings,
# and nothing starts it again (exit code 2).
REPLACED_SECONDS = 60.0  # one of the files changed so short a time ago: they may be replaced right now
WAIT_SECONDS, LOOK_SECONDS = 5.0, 0.25


class TlsFileError(OSError):
    """What is in a file is of no use; the text names the setting and what is allowed."""


def tls_context(ca_file: Path | None, certificate_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Make a context that verifies the broker's name and certificate.

    Raises:
        TlsFileError: What is in a file is of no use, or everybody may write to it.
        OSError: A file cannot be read.
    """
    for name, file in (("MQTT_CA_FILE", ca_file), ("MQTT_CERT_FILE", certificate_file), ("MQTT_KEY_FILE", key_file)):
        if file is not None:
            _check_trusted(name, file)
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


def _check_trusted(name: str, file: Path) -> None:
    """Refuse a file that a start would refuse: it may have become one since."""
    try:
        check_file(file)
    except ValueError as error:
        raise TlsFileError(f"{name} is not used: {name_shown(file)}: {error}") from None


def check_authorities(ca_file: Path) -> None:
    """Try a file with authorities, of whichever setting; it can be read.

    Raises:
        ValueError: It is of no use; with a sentence that says what is allowed.
    """
    if problem := _problem(ca_file, None, None):
        raise ValueError(problem)


def check_key(certificate_file: Path | None, key_file: Path) -> None:
    """Try a certificate with its key; they can be read. While somebody may be replacing them, try again for seconds.

    Raises:
        ValueError: They are of no use; with a sentence that says what is allowed.
    """
    give_up_at = time.monotonic() + WAIT_SECONDS
    while (problem := _problem(None, certificate_file, key_file)) and may_be_replaced(certificate_file, key_file):
        if time.monotonic() >= give_up_at:
            break
        time.sleep(LOOK_SECONDS)
    if problem:
        raise ValueError(problem)


def may_be_replaced(*files: Path | None) -> bool:
    """Tell whether one of the files changed a moment ago; one that is missing may be on its way."""
    try:
        changed_at = max((file.stat().st_mtime for file in files if file), default=0.0)
    except FileNotFoundError:
        return True
    return abs(time.time() - changed_at) < REPLACED_SECONDS


def _problem(*files: Path | None) -> str:
    """Return what is wrong with files, with what is allowed; empty if nothing is."""
    try:
        tls_context(*files)
    except FileNotFoundError as error:  # it was there a moment ago
        return f"must be the path of a readable file: {error.strerror}"
    except TlsFileError as error:
        return str(error).partition(" ")[2]
    return ""


def _reason(error: ssl.SSLError) -> str:
    """Return what OpenSSL says of it, if anything; it has nothing of the file in it."""
    return f"; OpenSSL says: {error.reason}" if error.reason else ""
