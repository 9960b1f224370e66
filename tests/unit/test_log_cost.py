"""What a line of the log costs: a few milliseconds at most, whatever topic a publisher chose, and one look for all."""

from __future__ import annotations

import ast
import io
import logging
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core.message import Message
from app.kafka.lane_log import LaneLog
from app.lines import JsonFormatter, LineFormatter, LogHandler
from app.logged_text import LOGGED_CHARACTERS, LoggedText
from app.mqtt.properties import PublishProperties
from app.pages.problems import RecentProblems
from app.routing import left_out
from app.secret_forms import SHOWN_INSTEAD, known
from app.throttle import Throttle

REPOSITORY = Path(__file__).parents[2]
MOST_SECONDS = 0.01  # was 0.05
# What has the guard look at each of its views, and find beginnings of secrets in all of them.
DEAR = '&eyJICAgICAgICAgICAgICAgICAgICAgICAgAIHsie30.eyJ\\x41Ã¤response:"basic Ã¤,@'
MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)) in {"Mn", "Mc", "Me"})
TOPICS = {
    "plain": "x" * 65_000,
    "dear": DEAR * 800,
    "authorization": "authorization: [\\1" * 3_500,
    "marks": (MARKS * 30)[:16_000],
    "invisible": "\U000e0041" * 16_000,
    "no text": "\udc80" * 21_000,
    "addresses": "://" * 21_000,
}
SECRETS = ["hunter2-correct+horse", "Zq8/7+==xT;|n\\", "another-secret-of-some-length-which-is-long-0123456789"]


@pytest.fixture(params=[LineFormatter, JsonFormatter])
def written(request, monkeypatch):
    """Have the log and the page listen, as in a worker; return what the log has."""
    known.know(SECRETS)
    stream, root = io.StringIO(), logging.getLogger()
    handler = LogHandler(stream)
    handler.setFormatter(request.param())
    monkeypatch.setattr(root, "handlers", [handler, RecentProblems()])
    monkeypatch.setattr(left_out, "throttle", Throttle(logging.getLogger("left out")))
    yield stream
    known.know(())


def message_of(topic: str) -> Message:
    message = Message(topic.encode("utf-8", "surrogateescape"), b"", 1, 2, 1, b"", 0, None)
    message.destination = SimpleNamespace(topic="k")
    return message


def mapped_by(route: str, left_out_headers: int = 0):
    return SimpleNamespace(route=route, resolved=SimpleNamespace(left_out=left_out_headers))


LINES = {
    "dead letter": lambda message, _: LaneLog().dead_letter(message, "too_large", "Kafka takes less"),
    "properties": lambda message, route: left_out.log_left_out(
        message, mapped_by(route), PublishProperties(left_out=3)
    ),
    "headers": lambda message, route: left_out.log_left_out(message, mapped_by(route, 3), PublishProperties()),
}


@pytest.mark.parametrize("kind", TOPICS)
@pytest.mark.parametrize("line", LINES)
def test_a_line_about_the_longest_topic_takes_milliseconds(line, kind, written):
    """One took 50 ms, and 24 of them came with one read of messages."""
    message = message_of(TOPICS[kind])
    least = float("inf")
    for number in range(3):
        begun = time.thread_time()
        LINES[line](message, f"r{number}")
        least = min(least, time.thread_time() - begun)
    assert least < MOST_SECONDS
    assert written.getvalue().count("\n") == 3 and "lost" not in written.getvalue()


def test_a_text_is_looked_at_once_for_all_that_show_it(written, monkeypatch):
    looked_at = []
    hidden = known.hidden
    monkeypatch.setattr(known, "hidden", lambda text: looked_at.append(text) or hidden(text))
    logging.getLogger("x").warning("the topic %r is refused", "a/b")
    assert looked_at == ["the topic 'a/b' is refused"]
    assert written.getvalue().count("the topic 'a/b' is refused") == 1


def test_a_secret_that_is_known_later_is_not_in_a_line_that_is_written_again(written):
    record = logging.LogRecord("x", logging.WARNING, "", 0, "said %s", ("k3y-7d20e5-canary",), None)
    formatter = LineFormatter()
    assert formatter.format(record).endswith("said k3y-7d20e5-canary")
    known.know(["k3y-7d20e5-canary"])
    assert formatter.format(record).endswith(f"said {SHOWN_INSTEAD}")


def test_a_topic_is_cut_in_a_line_alone_and_through_no_secret():
    known.know(SECRETS)
    assert f"{LoggedText('a/b c')!s} {LoggedText('a/b c')!r}" == "a/b c 'a/b c'"
    whole = "x" * LOGGED_CHARACTERS
    assert str(LoggedText(whole)) == whole
    assert str(LoggedText(whole + "y")) == f"{whole}..."
    for secret in SECRETS[:2]:
        for said in (secret, "".join(f"\\U{ord(c):08x}" for c in secret)):
            for at in range(max(0, LOGGED_CHARACTERS - len(said)), LOGGED_CHARACTERS, 3):
                shown = str(LoggedText("x" * at + said + "y" * 2_000))
                assert said[:8] not in shown, shown


def test_a_topic_is_not_looked_at_for_a_line_that_is_left_out(written, monkeypatch):
    """A flood of messages that are logged once a minute must not cost more than they did."""
    log = LaneLog()
    message = message_of(TOPICS["dear"])
    log.dead_letter(message, "too_large", "Kafka takes less")
    monkeypatch.setattr(known, "hidden_beginning", None)
    log.dead_letter(message, "too_large", "Kafka takes less")
    assert written.getvalue().count("\n") == 1


def test_each_topic_of_a_message_is_cut_where_it_is_logged():
    """Whoever shows the topic for people in another way is named here."""
    uses = []
    for path in sorted(file for folder in ("app", "agents", "tables") for file in (REPOSITORY / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "topic_text" not in source:
            continue
        tree = ast.parse(source)
        cut = {id(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args
               and isinstance(node.func, ast.Name) and node.func.id == "LoggedText"}  # fmt: skip
        uses += [
            path.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "topic_text" and id(node) not in cut
        ]
    assert uses == ["tap.py", "tap.py", "dead_letter_commands.py"]
