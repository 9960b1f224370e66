"""What of the settings is secret, as single texts: what `app.secret_forms` looks for."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

# Of KAFKA_PRODUCER_CONFIG: words such as SASL_SSL or all,msg are no secrets, unless the property is named like one.
_WORDS = re.compile(r"[a-z_,.: ]*", re.IGNORECASE)
# What an error must be able to name.
_OPEN_PROPERTY = re.compile(r"\.location$|^client\.id$")
_SECRET_PROPERTY = re.compile(r"password|passphrase|secret|token|config|assertion|jaas")


class _Object(list[tuple[str, object]]):
    """The pairs of a JSON object, each value of a name that comes twice included."""


def secret_values(values: Mapping[str, str], secret_names: tuple[str, ...]) -> list[str]:
    """Return the secrets among values by the names of their variables, right or wrong ones."""
    found = [values[name] for name in secret_names if name in values]
    found += _in_properties(values.get("KAFKA_PRODUCER_CONFIG", ""))
    with contextlib.suppress(ValueError):  # it is refused then, and not shown
        found.append(urlsplit(values.get("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "")).query)
    return found


def _in_properties(text: str) -> Iterator[str]:
    try:
        properties = json.loads(text, object_pairs_hook=_Object)  # as far as it can be read: it may be refused
    except (ValueError, RecursionError):
        return
    for name, value in properties if isinstance(properties, _Object) else ():
        is_open = _OPEN_PROPERTY.search(name) or _WORDS.fullmatch(str(value))
        if isinstance(value, str) and (_SECRET_PROPERTY.search(name.lower()) or not is_open):
            yield value
