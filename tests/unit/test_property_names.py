"""Under which names properties become headers: no publisher can write a header of ours, whatever it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bounds import LEFT_OUT_HEADER
from app.core.message import DEAD_LETTER_REASON, DEAD_LETTER_TOPIC
from app.core.record_times import RECEIVED_HEADER
from app.mqtt.properties import decode

OURS = ("connector-id", "connector-seq", RECEIVED_HEADER, LEFT_OUT_HEADER, DEAD_LETTER_REASON, DEAD_LETTER_TOPIC,
        "mqtt-topic", "mqtt-qos", "mqtt-retain", "mqtt-dup", "mqtt-message-expiry", "mqtt-response-topic",
        "mqtt-correlation-data", "mqtt-content-type")  # fmt: skip
RESERVED = ("connector-", "mqtt-", "dead-letter-")
# Pieces of which attacks are made: our names, what is done to names on their way, and what might end them early.
PIECES = (
    *OURS,
    *RESERVED,
    "mqtt-user-",
    "ce_",
    "specversion",
    "traceparent",
    "content-type",
    "/",
    "\0",
    "\n",
    "-",
    "_",
    "",
)
EVENT = (b"specversion", b"1.0")


def user_properties(*pairs):
    """Return the encoding of user properties."""
    return b"".join(b"\x26" + b"".join(len(text).to_bytes(2, "big") + text for text in pair) for pair in pairs)


def names_of(*pairs):
    return [name for name, _ in decode(user_properties(*pairs)).headers]


def may_be_of_a_publisher(name):
    return name.startswith("mqtt-user-") or not name.startswith(RESERVED)


@pytest.mark.parametrize("is_event", [False, True])
@pytest.mark.parametrize("name", [*OURS, *RESERVED, *(f"{name}\0" for name in OURS), *(name.upper() for name in OURS)])
def test_no_name_of_ours_can_be_written(name, is_event):
    names = names_of((name.encode(), b"forged"), *([EVENT] if is_event else []))
    assert names[0] == f"mqtt-user-{name}"


NAMES = st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text() | st.binary(max_size=20)


@given(st.lists(NAMES, max_size=5), st.booleans())
def test_whatever_a_publisher_names_its_header_is_none_of_ours(texts, is_event):
    pairs = [(text.encode() if isinstance(text, str) else text, b"") for text in texts]
    names = names_of(*pairs, *([EVENT] if is_event else []))
    assert all(map(may_be_of_a_publisher, names)), names
    assert all(name.startswith(("mqtt-user-", "ce_", "trace")) for name in names), names


def test_only_what_says_that_it_is_an_event_is_named_as_one():
    attributes = [(b"id", b"1"), (b"source", b"/a"), (b"type", b"t"), (b"time", b"now"), (b"ext1", b"x")]
    assert names_of(*attributes) == [f"mqtt-user-{name.decode()}" for name, _ in attributes]
    assert names_of(EVENT, *attributes) == ["ce_specversion", *(f"ce_{name.decode()}" for name, _ in attributes)]
    no_attributes = [b"Id", b"a-b", b"data", b"datacontenttype", b"", "ä".encode(), b"id\n"]
    assert names_of(EVENT, *((name, b"") for name in no_attributes))[1:] == [
        f"mqtt-user-{name.decode()}" for name in no_attributes
    ]


def test_the_trace_context_has_the_names_of_its_standard():
    names = names_of((b"traceparent", b"1"), (b"tracestate", b"2"), (b"TraceParent", b"3"))
    assert names == ["traceparent", "tracestate", "mqtt-user-TraceParent"]


def test_the_content_type_of_an_event_has_both_names():
    content_type = b"\x03\x00\x01a"
    assert decode(content_type).headers == (("mqtt-content-type", b"a"),)
    found = decode(content_type * 500 + user_properties(EVENT)).headers
    assert found[0] == ("mqtt-content-type", b"a")
    assert [value for name, value in found if name == "content-type"] == [b"a"], "a publisher may send many"
