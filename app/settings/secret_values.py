"""What of the settings is secret, as single texts: what `app.secret_forms` looks for."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from app.settings.producer_properties import ALLOWED, Text

# Of KAFKA_PRODUCER_CONFIG: words such as SASL_SSL or all,msg are no secrets, unless the property is named like one.
_WORDS = re.compile(r"[a-z_,.: ]*", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*")
# What an error must be able to name.
_OPEN_PROPERTY = re.compile(r"\.location$|^client\.id$")
_SECRET_PROPERTY = re.compile(r"password|passphrase|secret|token|config|assertion|jaas")
# Certificates are public, whichever property they stand in; all authorities of a system are 3,600 lines.
_PUBLIC_BLOCK = re.compile(
    r"-----BEGIN (?P<label>(?:X509 |TRUSTED )?CERTIFICATE|X509 CRL)-----[A-Za-z0-9+/=\s]*-----END (?P=label)-----"
)
# What stands between blocks for people to read: names of authorities, what openssl tells of a certificate. A line with
# a long run of base64 is none: it may be all of a key, with blanks in place of its line ends.
_EXPLANATION = re.compile(r"(?!.*[A-Za-z0-9+/]{40})(?:\s*#|.*\S\s+\S|.*:\s*$)")
_PROPERTIES = "KAFKA_PRODUCER_CONFIG"


class _Object(list[tuple[str, object]]):
    """The pairs of a JSON object, each value of a name that comes twice included."""


def secret_values(values: Mapping[str, str], secret_names: tuple[str, ...]) -> list[str]:
    """Return the secrets among values by the names of their variables, right or wrong ones."""
    found = [values[name] for name in secret_names if name in values and name != _PROPERTIES]
    found += _in_properties(values.get(_PROPERTIES, ""))
    with contextlib.suppress(ValueError):  # it is refused then, and not shown
        found.append(urlsplit(values.get("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "")).query)
    return found


def _in_properties(text: str) -> Iterator[str]:
    """Yield the secrets in a JSON object of properties; all of a text that is none."""
    properties: object = None
    with contextlib.suppress(ValueError, RecursionError):
        # As far as it can be read: it may be refused. Numbers as they are written, as one may be a password.
        properties = json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str)
    if not isinstance(properties, _Object):
        yield text
        return
    for name, property_value in properties:
        for value in _texts_in(property_value):
            is_open = _OPEN_PROPERTY.search(name) or _WORDS.fullmatch(value) or _is_plain_number(name, value)
            if _SECRET_PROPERTY.search(name.lower()) or not is_open:
                yield _without_certificates(value)


def _is_plain_number(name: str, text: str) -> bool:
    """Tell whether it is a number where one is wanted: bytes or milliseconds are no secret."""
    return _NUMBER.fullmatch(text) is not None and not isinstance(ALLOWED.get(name), Text)


def _texts_in(value: object) -> Iterator[str]:
    """Yield the texts of a value, which may be a list or an object: that is refused, and not shown."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts_in(part)


def _without_certificates(text: str) -> str:
    """Return what of a text is no certificate and no explanation of one: a key beside it, say."""
    rest, blocks = _PUBLIC_BLOCK.subn("\n", text)
    return "\n".join(line for line in rest.splitlines() if not _EXPLANATION.match(line)) if blocks else text
