"""JSON that others wrote, read in the one way in which every reader understands it (RFC 8259, and I-JSON, RFC 7493).

Python's own reader takes more: of a name that comes twice the last value, NaN and Infinity, UTF-16 and UTF-32, a mark
before the text, halves of characters. Whoever looks at such a text beside us, as a proxy or a person does, could read
another thing in it than we do. So it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

Pairs = list[tuple[str, Any]]


def _object(pairs: Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in an object")
    return found


def strict_json(data: bytes | str, make_object: Callable[[Pairs], Any] = _object) -> Any:
    """Return what a JSON text says.

    Args:
        data: The text, in UTF-8 if it is bytes.
        make_object: Makes an object of its pairs; by itself a dictionary, and a name that comes twice is refused.

    Raises:
        ValueError: It is no JSON, or nested too deeply. The error has nothing of the text in it.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=make_object, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # half a character, as "\ud800" has one, is no UTF-8
    except (ValueError, RecursionError):
        pass
    else:
        return found
    # Outside of the handler: the error's own text, and the text that it was about, must not travel along.
    raise ValueError("it is no JSON in UTF-8, or a name comes twice in an object")


def _no_number(_text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
