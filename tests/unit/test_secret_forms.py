"""The last guard: what is secret is in no text that leaves the process, in whatever form a library gives it."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, quote_plus

import pytest
from confluent_kafka import KafkaException, Producer
from paho.mqtt.enums import MQTTProtocolVersion

from app.errors import SettingsError
from app.kafka.log_filters import WithoutValues
from app.lines import (
    LONGEST_WORDS_CHARACTERS,
    JsonFormatter,
    LineFormatter,
    LogHandler,
    escaped,
    escaped_json,
    last_word,
    short,
    shown_topic,
)
from app.mqtt.connection import ConnectionSettings
from app.secret_forms import (
    MARGIN_CHARACTERS,
    PROBE_CHARACTERS,
    SHORTEST_CHARACTERS,
    SHOWN_INSTEAD,
    KnownSecrets,
    known,
)
from app.settings import NAMES, SECRET_NAMES, load_settings
from app.settings.files import LONGEST_FILE_BYTES
from app.settings.producer_properties import ALLOWED, Text
from app.settings.secret_values import secret_values

SECRET = 'cänary 7d20e5 "q" %41/+=<&>\'\\x'
REQUIRED = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "a",
    "KAFKA_BROKER": "127.0.0.1:1",
    "TOPIC_LIST": "a:b",
}
DATA = SECRET.encode()
FORMS = {
    "as it is": SECRET,
    "JSON": json.dumps(SECRET),
    "JSON in UTF-8": json.dumps(SECRET, ensure_ascii=False),
    "repr": repr(SECRET),
    "repr of bytes": repr(DATA),
    "URL": quote(SECRET),
    "URL, all of it": quote(SECRET, safe=""),
    "form": quote_plus(SECRET),
    "URL in lower case": re.sub("%..", lambda code: code[0].lower(), quote(SECRET, safe="")),
    "HTML": html.escape(SECRET),
    "HTML of Go": html.escape(SECRET).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "HTML in numbers": "".join(c if c.isascii() and c.isalnum() else f"&#{ord(c)};" for c in SECRET),
    "JSON of PHP": json.dumps(SECRET).replace("/", r"\/"),
    "JSON of .NET": json.dumps(SECRET)
    .translate({ord(c): f"\\u{ord(c):04X}" for c in "+<=&>'"})
    .replace('\\"', "\\u0022"),
    "JSON in JSON": json.dumps(json.dumps(SECRET).replace("/", r"\/")),
    "each letter for JSON": "".join(f"\\u{ord(c):04x}" for c in SECRET),
    "each letter for JSON in JSON": "".join(f"\\\\u{ord(c):04X}" for c in SECRET),
    "each letter for a URL": "".join(f"%{byte:02x}" for byte in DATA),
    "each letter for a URL, twice": "".join(f"%25{byte:02X}" for byte in DATA),
    "each letter for HTML": "".join(f"&#{ord(c)};" for c in SECRET),
    "each letter for HTML, hexadecimal": "".join(f"&#x{ord(c):X};" for c in SECRET),
    "each letter for HTML, with zeros": "".join(f"&#0{ord(c)};" for c in SECRET),
    "each letter for HTML, twice": "".join(f"&amp;#{ord(c)};" for c in SECRET),
    "each letter for Python": "".join(f"\\x{byte:02x}" for byte in DATA),
    "each letter for Python, long": "".join(f"\\U{ord(c):08x}" for c in SECRET),
    "each letter for C": "".join(f"\\{byte:03o}" for byte in DATA),
    "each letter for JavaScript": "".join(f"\\u{{{ord(c):x}}}" for c in SECRET),
    "each letter for C, short": "".join(f"\\{ord(c):o}" if ord(c) < 256 else c for c in SECRET),
    "each letter by its name": "".join(f"\\N{{{unicodedata.name(c)}}}" for c in SECRET),
    "each letter for HTML, without semicolons": "".join(f"&#{ord(c)}" for c in SECRET),
    "each sign after a backslash": re.sub(r"[^\w\\]", r"\\\g<0>", SECRET.replace("\\", "\\\\")),
    "HTML without semicolons": re.sub("&(?:amp|lt|gt|quot);", lambda name: name[0][:-1], html.escape(SECRET)),
    "hexadecimal, by two bytes": DATA.hex(" ", 2),
    "hexadecimal, by two bytes and in lines": re.sub("(.{20})", r"\1\n", DATA.hex(" ", 2)),
    "hexadecimal of C": ", ".join(f"0x{byte:02X}" for byte in DATA),
    "each letter of an old script": "".join(f"%u{ord(c):04x}" for c in SECRET),
    "every second letter": "".join(f"\\u{ord(c):04x}" if n % 2 else json.dumps(c)[1:-1] for n, c in enumerate(SECRET)),
    "hex": DATA.hex(),
    "HEX": DATA.hex().upper(),
    "hex with blanks": DATA.hex(" "),
    "read as Latin-1": DATA.decode("latin-1"),
    "Basic": base64.b64encode(b"user:" + DATA).decode(),
    "SASL PLAIN": base64.b64encode(b"\0someone\0" + DATA).decode(),
    "base64": base64.b64encode(DATA).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(b"{}" + DATA + b"??>").decode(),
}
IN_LINES = {
    "MIME": base64.encodebytes(b"-" * 50 + DATA + b"?" * 60).decode(),
    "MIME with CRLF": base64.encodebytes(b"-" * 41 + DATA + b"?" * 60).decode().replace("\n", "\r\n"),
    "MIME in JSON": json.dumps(base64.encodebytes(b"-" * 46 + DATA + b"?" * 60).decode()),
    "MIME in a URL": quote(base64.encodebytes(b"-" * 45 + DATA + b"?" * 60).decode().replace("\n", "\r\n")),
    "a header that goes on": base64.encodebytes(b"-" * 44 + DATA + b"?" * 60).decode().replace("\n", "\r\n "),
}
# What is recognisable of it in any of them.
TRACES = ["7d20e5", "anary", DATA.hex()[8:24], DATA.hex().upper()[8:24], DATA.hex(" ")[12:36]]
TRACES += [base64.b64encode(b"x" * shift + DATA).decode()[8:20] for shift in range(3)]
CONTEXTS = (
    "generic", "broker", "topic", "metadata", "feature", "queue", "msg", "protocol", "cgrp", "security", "fetch",
    "interceptor", "plugin", "consumer", "admin", "eos", "mock", "assignor", "conf", "telemetry", "all",
)  # fmt: skip


LAYOUTS = ("\n{}", "\r\n{}", " {}", "\t{}", "\n\n {}", "{\n  ", "{\r\n\t")


def jwt(layout: str, *, at: int = 1000, end: str = "\n") -> str:
    """Return a JWT whose parts are laid out so, broken into lines."""
    content = json.dumps({"alg": "HS256", "sub": "x" * 60})
    part = layout.replace("{}", content) if "{}" in layout else layout + content[1:]
    coded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")] * 2
    whole = ".".join([*coded, "Zm9v" * 10])
    return end.join(whole[place : place + at] for place in range(0, len(whole), at))


HEADERS = (
    '{"urn:x:y":1}', '{"@type":"JWT"}', '{"http://a.example/b":true}', '{"my key":1}', '{"$id":"x","alg":"none"}',
    '{"ä€𝄞":1}', '{"\\u0061lg":"none"}', '{"":1,"alg":"none"}', '{"a\\"b":1, "x": 2}',
    '{"*+~!,;=()[]{}<>?\\\\|^`%&":"none"}',
    '{"aaaaaaaaä":1}', '{"aaaaaaaaaä":1}', '{"aaaaaaaa€":1}', '{"aaaaaaaaa€":1}', '{"alg":"none" }',
)  # fmt: skip


def token(header: str) -> str:
    """Return a JWT with this header."""
    first, second = (base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in (header, '{"sub":"x"}'))
    return f"{first}.{second}.{'Zm9v' * 10}"


def assert_no_trace(text: str) -> None:
    for trace in TRACES:
        assert trace not in text, text


@pytest.fixture(autouse=True)
def _nothing_is_known_afterwards():
    yield
    known.know(())


def formatted(text: object, *values: object) -> list[str]:
    record = logging.LogRecord("x", logging.WARNING, "", 0, text, values, None)
    lines = [formatter.format(record) for formatter in (LineFormatter("%(message)s"), JsonFormatter())]
    return [*lines, last_word(record.getMessage(), as_json=False)]


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_hidden_in_every_form_and_the_rest_of_the_line_stays(form):
    known.know([SECRET])
    for line in formatted("refused: <%s>, try again", FORMS[form]):
        assert_no_trace(line)
        assert "refused: <" in line and ">, try again" in line
        assert SHOWN_INSTEAD in line


@pytest.mark.parametrize("before", ["%", "\\x", "\\"], ids=["URL", "Python", "C"])
@pytest.mark.parametrize("letter", ["ö", "ß", "€", "𝄞"])
def test_a_secret_is_hidden_of_which_only_some_letters_are_escaped_as_bytes(before, letter):
    secret = "zwölf große € oder 𝄞"
    code = "{:03o}" if before == "\\" else "{:02x}"
    some = secret.replace(letter, "".join(before + code.format(byte) for byte in letter.encode()))
    for text in (some, secret.replace(letter, letter.encode().decode("latin-1"))):
        hidden = KnownSecrets([secret]).hidden(f"refused: <{text}>, try again")
        assert hidden.endswith(f"{SHOWN_INSTEAD}>, try again")
        assert not any(piece in hidden for piece in ("lf gro", "oder"))


@pytest.mark.parametrize("form", IN_LINES)
@pytest.mark.parametrize("secret", [SECRET, SECRET[:18]], ids=["long", "short"])
def test_a_secret_in_base64_that_is_broken_into_lines_is_hidden(form, secret):
    """Of a long one what is beside it goes too, as each of its lines may be all that is left of it."""
    known.know([secret])
    for line in formatted("refused: <%s>, try again", IN_LINES[form]):
        assert_no_trace(line.replace(base64.b64encode(DATA[20:]).decode(), ""))
        assert SHOWN_INSTEAD in line


def test_what_a_library_cut_of_a_long_secret_is_hidden_with_what_is_beside_it():
    long_secret = SECRET + "-0123456789" * 30
    known.know([long_secret])
    beginning, end = long_secret[: PROBE_CHARACTERS + 3], long_secret[-PROBE_CHARACTERS - 3 :]
    assert escaped(f"a {beginning}... b") == f"a {SHOWN_INSTEAD}"
    assert escaped(f"a ...{end} b") == f"{SHOWN_INSTEAD} b"
    for secret in (SECRET, long_secret):
        for at in range(1000, 1600, 7):
            assert_no_trace(escaped("x" * at + secret + "y" * 1000))
            assert_no_trace(escaped("x" * 1900 + secret + "y" * (at - 1000)))


def test_the_middle_of_a_long_secret_in_which_a_library_cut_its_text_is_hidden():
    """What is kept of the end of a text is nothing but the middle of it; its beginning is far before."""
    secret = "".join(f"{number:04x}-" for number in range(800))
    known.know([secret])
    pieces = {secret[at : at + 2 * PROBE_CHARACTERS] for at in range(len(secret) - 2 * PROBE_CHARACTERS)}
    for before in (0, 300, 1_100, 1_699, 3_000):
        for length in (700, 1_700, 3_900):
            for said in (escaped("x" * before + secret[:length]), escaped(short("x" * before + secret[:length]))):
                assert not any(piece in said for piece in pieces), (before, length)


def test_a_cut_of_ours_through_what_others_say_goes_through_no_secret():
    """Of a secret that is short no beginning is looked for later, so it is taken out before the cut."""
    known.know([SECRET])
    for at in range(LONGEST_WORDS_CHARACTERS - len(SECRET) - 3, LONGEST_WORDS_CHARACTERS + 3):
        said = short("x" * at + SECRET + "y" * 1000)
        assert not any(SECRET[:length] in said for length in range(4, len(SECRET) + 1)), said


@pytest.mark.parametrize("length", [LONGEST_WORDS_CHARACTERS, 1500])
def test_what_is_looked_at_beside_a_cut_does_not_come_to_be_shown_however_much_is_hidden_before_it(length):
    """A long user name in a URL is hidden in a few characters; that brings nothing that follows it before the cut."""
    secret = "k3y-of-the-broker-7d20e5"
    known.know([secret])
    hidden = f"x://{'a' * 8300}@ "
    for at in range(length + MARGIN_CHARACTERS - len(secret), length + MARGIN_CHARACTERS + 1):
        text = hidden + "." * (at - len(hidden)) + secret + "." * 30_000
        for said in (short(text), escaped(text), escaped(text[::-1].replace(secret[::-1], secret))):
            parts = {part for size in range(4, len(secret) + 1) for part in (secret[:size], secret[-size:])}
            assert not any(part in said for part in parts), said


def test_nobody_learns_a_secret_piece_by_piece_by_publishing_guesses():
    """Of a guess that is right in part all that follows is hidden, right or not; the page hides none in topics."""
    secret = "sk-live-production-eu-" + "7d20e5" * 5
    known.know([secret])
    for right in range(PROBE_CHARACTERS, len(secret)):
        assert escaped(f"topic {secret[:right]}!!!") == escaped(f"topic {secret[:right]}") == f"topic {SHOWN_INSTEAD}"
        assert escaped(f"!!!{secret[-right:]} .") == escaped(f"{secret[-right:]} .") == f"{SHOWN_INSTEAD} ."
    for right in range(1, PROBE_CHARACTERS):
        assert escaped(secret[:right]) == secret[:right]
    assert escaped_json({"mqtt_topic": shown_topic(f"{secret}\u200b")}) == json.dumps(
        {"mqtt_topic": f"{secret}\\u200b"}
    )


def test_each_line_of_a_secret_is_one_and_what_is_blank_around_it_is_none():
    lines = [f"MIIEvQIBADANBg{number}" for number in range(4)]
    known.know(["\n".join(lines), f" {SECRET}\r\n"])
    for text in ["\r\n".join(lines), lines[2], SECRET]:
        assert escaped(text).replace(SHOWN_INSTEAD, "").replace("\\r\\n", "") == ""


def test_a_short_secret_does_not_turn_the_log_into_gaps():
    known.know(["a", "mqtt", "x" * (SHORTEST_CHARACTERS - 1)])
    assert escaped("connected to the MQTT broker, mqtt, xxxxxxxx") == "connected to the MQTT broker, mqtt, xxxxxxxx"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://user:pa/s:s@host:1 ended", f"mqtt://{SHOWN_INSTEAD}@host:1 ended"),
        ("via http://u:p@proxy, and https://b@c", f"via http://{SHOWN_INSTEAD}@proxy, and https://{SHOWN_INSTEAD}@c"),
        ("Authorization: Bearer some.token-1", f"Authorization: {SHOWN_INSTEAD}"),
        ("b'Authorization: Basic dXNlcjpwYXNz\\r'", f"b'Authorization: {SHOWN_INSTEAD}'"),
        ("Authorization:\tBearer a %b \xe4 c\r\nX: 1", f"Authorization:\\t{SHOWN_INSTEAD}\\r\\nX: 1"),
        ("(b'Authorization', b'Bearer a b c')", f"(b'Authorization', b'{SHOWN_INSTEAD}')"),
        (r"at https:\/\/user:p%41w@host:1\/x", rf"at https:\/\/{SHOWN_INSTEAD}@host:1\/x"),
        (r"at https:\u002f\u002Fuser:pw\u0040host", rf"at https:\u002f\u002F{SHOWN_INSTEAD}\u0040host"),
        ("at https%3A%2F%2Fuser%3Apw%40host", f"at https%3A%2F%2F{SHOWN_INSTEAD}%40host"),
        ("at https:&#x2F;&#47;user:pw&commat;host", f"at https:&#x2F;&#47;{SHOWN_INSTEAD}&commat;host"),
        (f"Digest response={'0a' * 16}, nc=1", f"Digest response={SHOWN_INSTEAD}, nc=1"),
        (f'Digest qop="auth", response="{"0a" * 32}"', f'Digest qop="auth", response="{SHOWN_INSTEAD}"'),
        (f"response=&quot;{'0A' * 16}&quot;", f"response=&quot;{SHOWN_INSTEAD}&quot;"),
        (f"{{'response': '{'0a' * 16}'}}", f"{{'response': '{SHOWN_INSTEAD}'}}"),
        (f"is {jwt('{}')} old", f"is {SHOWN_INSTEAD} old"),
        (f"is {jwt('{}', at=8)} old", f"is {SHOWN_INSTEAD} old"),
        (f"is {jwt('{}', at=76, end=chr(13) + chr(10))} old", f"is {SHOWN_INSTEAD} old"),
        (f"is {json.dumps(jwt('{}', at=20))} old", f'is "{SHOWN_INSTEAD}" old'),
        *((f"is {jwt(layout)} old", f"is {SHOWN_INSTEAD} old") for layout in LAYOUTS),
        (f"Basic {'QUJD' * 19}\r\n {'QUJD' * 8}=; x", f"Basic {SHOWN_INSTEAD}; x"),
        ("{'authorization': 'sometoken'}", f"{{'authorization': '{SHOWN_INSTEAD}'}}"),
        ("got Bearer 0123456789abcdef0", f"got Bearer {SHOWN_INSTEAD}"),
        ("token eyJhbGciOiJub25lIn0.eyJhIjoxfQ.sig is old", f"token {SHOWN_INSTEAD} is old"),
        ('{"access_token": "abc", "x": 1}', f'{{"access_token": "{SHOWN_INSTEAD}", "x": 1}}'),
        ('{"access_token" : "abc", "x": 1}', f'{{"access_token" : "{SHOWN_INSTEAD}", "x": 1}}'),
        (r"said: {\"access_token\":\"ab\/c\"}", rf"said: {{\"access_token\":\"{SHOWN_INSTEAD}\"}}"),
        ("&quot;id_token&quot;:&quot;abc&quot;", f"&quot;id_token&quot;:&quot;{SHOWN_INSTEAD}&quot;"),
        ("refresh_token%3Dabc", f"refresh_token%3D{SHOWN_INSTEAD}"),
        (r"{\"Authorization\":[\"Bearer abcdefghi\"]}", rf'{{\"Authorization\":[\"{SHOWN_INSTEAD}"]}}'),
        ("a=1&client_secret=abc&b=2", f"a=1&client_secret={SHOWN_INSTEAD}&b=2"),
        ('{"registration_access_token": "abc"}', f'{{"registration_access_token": "{SHOWN_INSTEAD}"}}'),
        ("oauth_token=abc&subject_token=d", f"oauth_token={SHOWN_INSTEAD}&subject_token={SHOWN_INSTEAD}"),
        ('Authorization: Token token="abcdefgh"', f"Authorization: {SHOWN_INSTEAD}"),
        ("at http://user:p'w@host", f"at http://{SHOWN_INSTEAD}@host"),
        ("at http://user:p\xa0w@host", f"at http://{SHOWN_INSTEAD}@host"),
        ("{'client_secret': ['abc'], 'x': ['1']}", f"{{'client_secret': ['{SHOWN_INSTEAD}'], 'x': ['1']}}"),
        ("{'client_secret': ['abc', 'def'], 'x': 1}", f"{{'client_secret': ['{SHOWN_INSTEAD}'], 'x': 1}}"),
        ('{"access_token": ["abc"]}', f'{{"access_token": ["{SHOWN_INSTEAD}"]}}'),
        ('{"access_token": [ "abc",\t"def" ]}', f'{{"access_token": [ "{SHOWN_INSTEAD}" ]}}'),
        (r"{\"access_token\":[\"abc\",\"def\"]}", rf"{{\"access_token\":[\"{SHOWN_INSTEAD}\"]}}"),
        ("{'access_token': b'abc'}", f"{{'access_token': b'{SHOWN_INSTEAD}'}}"),
        ("{b'access_token': [b'abc', b'def']}", f"{{b'access_token': [b'{SHOWN_INSTEAD}']}}"),
        ("[('client_secret', 'abc'), ('x', '1')]", f"[('client_secret', '{SHOWN_INSTEAD}'), ('x', '1')]"),
        ('("access_token", ("abc", "def"))', f'("access_token", ("{SHOWN_INSTEAD}"))'),
        ("<access_token>abc</access_token> x", f"<access_token>{SHOWN_INSTEAD} x"),
        ("client_secret => 'abc'", f"client_secret => '{SHOWN_INSTEAD}'"),
        (f"access_token:{' ' * 12}abc", f"access_token:{' ' * 12}{SHOWN_INSTEAD}"),
        ("Authorization: Token 'abcdefgh' x", f"Authorization: {SHOWN_INSTEAD}"),
        ('Authorization: Key "abcd"', f"Authorization: {SHOWN_INSTEAD}"),
        ("{'authorization': ['Bearer', 'abcd'], 'x': 1}", f"{{'authorization': ['{SHOWN_INSTEAD}'], 'x': 1}}"),
        ("('Authorization', (b'Basic', b'abcd'))", f"('Authorization', (b'{SHOWN_INSTEAD}'))"),
        ('{"authorization": "Bearer abcd", "x": "y"}', f'{{"authorization": "{SHOWN_INSTEAD}", "x": "y"}}'),
        ("['Bearer', '0123456789abcdef0']", f"['Bearer', '{SHOWN_INSTEAD}']"),
        ('{"bearer": "0123456789abcdef0"}', f'{{"bearer": "{SHOWN_INSTEAD}"}}'),
        *((f"is {token(header)} old", f"is {SHOWN_INSTEAD} old") for header in HEADERS),
    ],
)
def test_what_looks_like_a_strangers_secret_is_hidden(text, shown):
    known.know([])
    assert escaped(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Kafka cannot be signed in to: SASL authentication error: Authentication failed",
        "the broker refused: Not authorized; Topic authorization failed",
        "This needs the header `Authorization: Bearer` with the value of WEB_TOKEN.",
        "pages at http://127.0.0.1:6066/, mails to a@b",
        "the basic rules, a bearer of news",
        "the broker's response: 0123456789abcdef is no answer",
        "eyJournalists.are people, monkeys.too: keyJoinOfTablesWithIds.first.second",
        "org.apache.kafka.common.errors.TopicAuthorizationException: CnfgDQSeywIDs.are no tokens",
        "these are missing: access_token, refresh_token (and client_secret); see response, authorization",
        "the basic, responsibilities and 'bearer', 'access_token'; eyJoinOfTablesWithIdsOfManyOthers.first.second",
        r"C:\new\table at 100%, AT&T; see https:\/\/host\/path",
    ],
)
def test_an_ordinary_sentence_stays(text):
    assert escaped(text) == text


PIECES = (
    "://", "://a@", "eyJ", "eyJhIjoxfQ", "eyJhIjoxfQ.", "eyJhIjoxfQ" * 3 + ".", "\\", "\\u0061", "%25", "&amp;",
    "\r\n ", "authorization: ", "client_secret\\\\", "Basic ", "response=", "authorization: ='",
    "client_secret': ['", "', '", '="', "eyJhIjoi", " ", "a", SECRET, SECRET[:6],
)  # fmt: skip


def test_the_guard_takes_a_time_that_grows_with_the_text_and_not_faster():
    """64 KiB of `://` took 58 ms: each of them was a beginning that reached to the end."""
    known.know([SECRET, SECRET * 3])
    for piece in PIECES:
        small, large = (min(seconds_for(piece * (size // len(piece))) for _ in range(2)) for size in (4_096, 32_768))
        assert large < 20 * small + 0.01, piece


def seconds_for(text: str) -> float:
    begun = time.process_time()
    known.hidden(text)
    return time.process_time() - begun


# ---- librdkafka


class Echo(BaseHTTPRequestHandler):
    """A token endpoint that gives back what it was sent, as its path says: in JSON, as a page, as a token."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        sent = f"{body} {self.headers['Authorization']} {base64.b64decode(self.headers['Authorization'][6:]).decode()}"
        kind = self.path.strip("/").partition("?")[0]
        answer = {
            "json": json.dumps({"error": "invalid_client", "error_description": sent}),
            "page": f"<p>{html.escape(sent)}",
            "token": json.dumps({"access_token": f"{quote(SECRET)}.{base64.b64encode(DATA).decode()}.x", "x": sent}),
            "number": json.dumps({"access_token": 5, "error": sent}),
        }[kind].encode()
        self.send_response({"json": 401, "page": 403}.get(kind, 200))
        self.send_header("Content-Type", "text/html" if kind == "page" else "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Lines(logging.Handler):
    """Keeps lines as the log has them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(LineFormatter("%(message)s"))

    def emit(self, record):
        self.lines.append(self.format(record))


def producer(configuration: dict, lines: Lines, context: str) -> Producer:
    logger = logging.Logger(f"librdkafka {context}", logging.DEBUG)  # noqa: LOG001, one that nobody else has
    logger.addHandler(lines)
    logger.addFilter(WithoutValues())

    def on_error(error):
        lines.lines.append(escaped(f"{error} {error!r}"))

    return Producer({**configuration, "debug": context, "logger": logger, "error_cb": on_error})


def test_librdkafka_says_no_secret_at_any_setting_of_debug_whatever_the_token_endpoint_answers(endpoint):
    """Each context by itself; the endpoint has all of the request in its answer: an error, a page or a token."""
    oidc = {"SASL_SSL": "true", "SASL_OAUTHBEARER_CLIENT_ID": "id", "SASL_OAUTHBEARER_CLIENT_SECRET": SECRET}
    password = {"KAFKA_SASL_USERNAME": "someone", "KAFKA_SASL_PASSWORD": SECRET}
    kinds = {
        kind: oidc | {"SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": f"{endpoint}/{kind}?key={quote(SECRET, safe='')}"}
        for kind in ("json", "page", "token", "number")
    }
    kinds |= {name: password | {"KAFKA_SASL_MECHANISM": name} for name in ("PLAIN", "SCRAM-SHA-512")}
    lines, producers = Lines(), []
    for number, context in enumerate(CONTEXTS):
        for kind in kinds if context == "all" else [list(kinds)[number % len(kinds)]]:
            settings = load_settings(REQUIRED | kinds[kind])
            producers.append(producer(settings.kafka_configuration(), lines, context))
    deadline = time.monotonic() + 60
    wanted = ("invalid_client", "(403)", "JWT", "Connection refused")
    while not all(any(text in line for line in lines.lines) for text in wanted) and time.monotonic() < deadline:
        for each in producers:
            each.poll(0.005)
    assert all(any(text in line for line in lines.lines) for text in wanted), lines.lines
    assert any("SHOWN" in line or SHOWN_INSTEAD in line for line in lines.lines)
    assert_no_trace("\n".join(lines.lines))


@pytest.mark.parametrize(
    "properties",
    [
        {"socket.timeout.ms": SECRET},
        {"sasl.password": f"{SECRET}\0"},
        {"sasl.password": [SECRET]},
        {"security.protocol": "SSL", "ssl.key.pem": SECRET, "ssl.key.password": SECRET},
        {"security.protocol": "SSL", "ssl.keystore.location": os.devnull, "ssl.keystore.password": SECRET},
        {"sasl.mechanism": "OAUTHBEARER", "security.protocol": "SASL_SSL", "sasl.oauthbearer.config": SECRET},
        {"plugin.library.paths": SECRET},
    ],
    ids=lambda properties: list(properties)[-1],
)
def test_a_configuration_that_librdkafka_refuses_is_told_without_its_values(properties):
    known.know([SECRET])
    lines = Lines()
    with pytest.raises((KafkaException, TypeError, ValueError)) as caught:
        producer({"bootstrap.servers": "127.0.0.1:1"} | properties, lines, "all").poll(0)
        raise ValueError("it is taken, and nothing was said")
    for text in (*formatted("%s", caught.value), *formatted("%r", caught.value), *lines.lines):
        assert_no_trace(text)


# ---- Python itself, and what of it has a repr


def test_no_repr_has_a_password():
    connection = ConnectionSettings("h", 1, "c", MQTTProtocolVersion.MQTTv5, 1, 1, 1, 1, "user", SECRET)
    assert_no_trace(repr(connection))
    assert_no_trace(repr(KnownSecrets([SECRET])))


FAILING = """
import logging, sys, threading
from app.hardening import harden_process
from app.secret_forms import known
secret = sys.argv[1]
known.know([secret])
harden_process()
def fail(*_):
    raise ValueError(f"{secret!r} \\u202e\\x1b[2J")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Broken:
    __del__ = fail
del_me = Broken()
del del_me
logging.getLogger("x").warning("%s \\u202e", secret)
fail()
"""


def test_python_itself_writes_no_secret_and_nothing_hostile_when_nobody_catches_an_error():
    """In a thread, in a destructor, at the end; and a log line before there is a log."""
    done = subprocess.run(
        [sys.executable, "-c", FAILING, SECRET], capture_output=True, check=False, timeout=120, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("ValueError") >= 3
    assert done.stderr.count(SHOWN_INSTEAD) >= 4
    assert_no_trace(done.stderr)
    assert done.stderr.replace("\n", "").isprintable()


def test_a_log_line_that_cannot_be_written_is_told_without_its_values(capsys):
    logger = logging.Logger("connector", logging.DEBUG)  # noqa: LOG001, one that nobody else has
    logger.addHandler(LogHandler(sys.stderr))
    logger.warning("%d", SECRET)
    said = capsys.readouterr().err
    assert_no_trace(said)
    assert said.startswith("a log line of connector (test_secret_forms.py:")
    assert said.endswith("is lost: TypeError\n")


# ---- settings


def problems_of(**changes: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(REQUIRED | changes)
    assert caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MQTT_BROKER_URL", "mqtt://user:7d20e5anary"),
        ("MQTT_BROKER_URL", "mqtt://user:7d20e5anary%40host"),
        ("MQTT_BROKER_URL", "mqtt://user:7d20e5anary\uff20host"),
        ("MQTT_BROKER_URL", "mqtt://host/?password=7d20e5anary"),
        ("MQTT_BROKER_URL", "http://user:7d20e5anary/x"),
        ("MQTT_BROKER_URL", "user;7d20e5anary"),
        ("KAFKA_BROKER", "user:7d20e5anary:host:1"),
        ("KAFKA_BROKER", "user:7d20e5anary%40host:1"),
        ("KAFKA_BROKER", "host:1,7d20e5anary#x"),
        ("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "https://user:7d20e5anary@host/"),
        ("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "https:/host/?key=7d20e5anary"),
        ("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "https://user:7d20e5anary"),
        ("SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI", "user:7d20e5anary/token"),
        ("MQTT_BROKER_URL", "mqtt://[user:7d20e5anary]"),
        ("WEB_HOST", "http://user:7d20e5anary"),
        ("LOG_LVL", f"{'x' * 70}7d20e5anary{'x' * 10}"),
        ("WEB_HOST", "user:7d20e5anary@host"),
        ("WEB_PORT", "https://host/?token=7d20e5anary"),
        ("MQTT_QOS", "user:7d20e5anary%40host"),
        ("WEB_ALLOWED_HOSTS", "name,https://user:7d20e5anary@host"),
        ("MQTT_USER_PASSWORD_FILE", "7d20e5anary"),
        ("MQTT_USER_PASSWORD_FILE", "/7d20e5anary/x"),
        ("MQTT_KEY_FILE", "-----BEGIN PRIVATE KEY-----\n7d20e5anary"),
        ("KAFKA_KEY_FILE", "MIIEvQIBADANBg7d20e5anary"),
        ("MQTT_KEY_FILE", f"{'M' * 300}7d20e5anary/x"),
        ("MQTT_USER_PASSWORD_FILE", f"{'M' * 300}7d20e5anary/x"),
        ("DB_PERSIST_PATH", f"{'M' * 300}7d20e5anary/x"),
    ],
)
def test_what_may_be_a_password_in_a_wrong_value_is_not_shown(name, value):
    said = problems_of(**{name: value, "MQTT_TLS": "true", "KAFKA_TLS": "true"})
    assert name in said
    assert_no_trace(said)


# A password in what looks like an address, or is laid out like one.
ADDRESSES = [
    "mqtt://user:{}@host", "mqtt://user:{}", "user:{}@host", "user:{}", "mqtt://user:{}%40host", "mqtt:user:{}@host",
    "https://u:{}@h/p?x=1", "//user:{}@host", "host,user:{}@host2", "SASL_SSL://u:{}@h:9092", "mqtt:/user:{}@host",
    "user:{}\uff20host", "{}@host", "mqtt://{}@host:1883", "1883:{}", "[::1]:{}", "host:{}", "host:1883:{}", "user:{}/",
    "mqtt://host:{}", "host;password={}", "host password={}", "key={}", "KAFKA_SASL_PASSWORD: {}", "redis://:{}",
    "user:{}:a", "a/b:t,user:{}@host:t", "mqtt://user:a,{}@host", "mqtt://user:+{}@host:t", "user:{{topic}}{{{}}}@host",
    "::1:{}", "u:{} x", "user:/{}", "a:b:{}#x@host:t",
]  # fmt: skip
PASSWORDS = ["Kanary7Zq", "7d20e5a", "deadbeef77"]  # the last two could be a part of an address of IPv6


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_setting_shows_a_password_in_an_address_when_it_is_wrong(address, password):
    """Of all settings, as an address may get into each of them; which of them take it is another matter."""
    value, wrong = address.format(password), 0
    for name in NAMES:
        if name in SECRET_NAMES:
            continue
        try:
            load_settings({**REQUIRED, "TOPIC_LIST": "a/b:t", name: value})
        except SettingsError as refused:
            wrong += 1
            assert password not in str(refused), name
    assert wrong > 20
    twins = {"REPLAY_MAX_IN_FLIGHT": value, "INVOKE_MAX_GOROUTINE": f"{value}x"}
    assert password not in problems_of(**twins)


@pytest.mark.parametrize("piece", ["a", ":", "a:", ": ", ":1", " ", "::1,", "1.", "a:b,"])
def test_a_long_wrong_value_is_judged_at_once(piece):
    """A file may hold 1 MiB."""
    before = time.process_time()
    problems_of(MQTT_QOS=piece * (1_000_000 // len(piece)))
    assert time.process_time() - before < 1


def test_what_looks_like_no_address_with_a_password_is_shown():
    """Else nobody would find what is wrong."""
    for name, value in {
        "MQTT_QOS": "three", "MQTT_BROKER_PORT": "tcp://10.0.0.1:1883", "WEB_PORT": "host:6066", "LOG_LVL": "fe80::1",
        "KAFKA_COMPRESSION": "[::1]:9092", "MQTT_SHARED_GROUP": "a/b", "DEAD_LETTER_TOPIC": "a b", "DELIVERY": "a:1,b",
        "RECORD_KEY": "{0}", "TOPIC_LIST": "plant/+/x:t",
    }.items():  # fmt: skip
        assert value.removesuffix(":t") in problems_of(**{name: value}), name


def test_a_secret_in_the_wrong_variable_is_not_shown_there_even_in_part():
    long_secret = SECRET + "z" * 100
    for value in (SECRET, long_secret):
        assert_no_trace(problems_of(MQTT_USER_PASSWORD=value, MQTT_QOS=value, WEB_HOST=value, LOG_LVL=value))
        assert_no_trace(problems_of(MQTT_USER_PASSWORD=value.upper(), WEB_ALLOWED_HOSTS=f"{value.upper()} x").lower())


def test_a_line_of_dotenv_without_its_sign_is_named_without_its_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "MQTT_USER_PASSWORD.7d20e5anary==\nKAFKA_SASL_PASSWORD7d20e5anary=1\nMQTT_X-7d20e5anary=1\nMQTT_HOST=1\n"
    )
    settings = load_settings(REQUIRED | {"RUN_MODE": "DEVELOP"})
    assert settings.unknown_names == ("KAFKA_SASL_PASSWORD...", "MQTT_HOST", "MQTT_USER_PASSWORD...", "MQTT_X...")


@pytest.mark.parametrize(
    "line",
    [
        "MQTT_USER_PASSWORD 7d20e5anary",
        'MQTT_USER_PASSWORD="7d20e5anary',
        "KAFKA_TLS='true",
        "KAFKA_TLS",
        "export KAFKA_TLS",
        "  KAFKA_TLS  # true",
        "KAFKA_TLS:true",
        "KAFKA_TLS: true",
        "7d20e5anary",
        "MQTT_USER_PASSWORD\u200b",
    ],
)
def test_a_line_of_dotenv_that_cannot_be_read_is_refused_and_not_left_out(line, tmp_path, monkeypatch):
    """Without its last quote KAFKA_TLS was left out in passing, and passwords crossed in clear text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"MQTT_QOS=1\n{line}\nWEB_PORT=6066\n")
    said = problems_of(RUN_MODE="DEVELOP")
    assert ".env: line 2 is no NAME=VALUE" in said
    assert_no_trace(said)
    for before in ("\n\n", "# x\n\n", "\r\n\r\n", "A='\n'\n"):
        (tmp_path / ".env").write_text(f"{before}{line}\n", newline="")
        assert ".env: line 3 is no NAME=VALUE" in problems_of(RUN_MODE="DEVELOP")


@pytest.mark.parametrize(
    "line",
    [
        "MQTT_USER_PASSWORD:7d20e5anary==",
        "MQTT_X:7d20e5anary=1",
        '"KAFKA_TLS"=true',
        "$KAFKA_TLS=true",
        "\ufeffKAFKA_TLS=true",
        "\u200bKAFKA_TLS=true",
        "KAFKA_TLS\u2060=true",
        "\uff2bAFKA_TLS=true",
        "\x7fKAFKA_TLS=true",
    ],
)
def test_a_line_of_dotenv_whose_name_is_none_is_refused_and_not_left_out(line, tmp_path, monkeypatch):
    """A mark of UTF-8 or a character without a shape before it, of which nothing can be seen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"MQTT_QOS=1\n{line}\n")
    said = problems_of(RUN_MODE="DEVELOP")
    assert ".env: line 2 has no name of a variable before its =" in said
    assert_no_trace(said)


@pytest.mark.parametrize(
    "line",
    ["\0KAFKA_TLS=true", "KAFKA_TLS\0=true", "KAFKA_TLS=true\0", "A='x\0'", "# KAFKA_TLS\0", "\0", "X 7d20e5\0anary"],
)
def test_a_dotenv_with_nul_is_refused(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"MQTT_QOS=1\n{line}\n")
    said = problems_of(RUN_MODE="DEVELOP")
    assert ".env: line 2 or one after it has the character NUL in it" in said
    assert_no_trace(said)


@pytest.mark.parametrize("name", ["kafka_tls", "KAFKA-TLS", "Kafka.Tls", "topic_list"])
def test_a_setting_in_another_spelling_is_named_as_one_that_is_ignored(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"{name}=true\nFOO.BAR-BAZ=1\nfoo=2\n")
    assert load_settings(REQUIRED | {"RUN_MODE": "DEVELOP"}).unknown_names == (name,)


@pytest.mark.parametrize(
    "value",
    [
        9876543210123456, "9876543210123456", -9876543210123456, [9876543210123456], {"a": ["x", 9876543210123456]},
        9876543210.123456, {"a": [{"b": 9876543210123456}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ssl.key.password", "ssl.keystore.password", "sasl.password"])
def test_a_password_that_is_a_number_in_json_is_a_secret(name, value):
    """It was taken as a text for librdkafka, and unknown to the last guard."""
    written = json.dumps({name: value, "message.max.bytes": 103000000, "linger.ms": "100000000000"})
    secrets = KnownSecrets(secret_values({"KAFKA_PRODUCER_CONFIG": written}, SECRET_NAMES))
    digits = max(re.findall(r"-?[0-9.]+", json.dumps(value)), key=len)
    assert digits not in secrets.hidden(f"librdkafka says: {digits} is wrong")
    assert "message.max.bytes=103000000 100000000000 ms" in secrets.hidden(
        "message.max.bytes=103000000 100000000000 ms"
    )


def test_lists_within_lists_in_the_place_of_a_password_are_refused_however_deep_they_are():
    for depth in (10, 400, 900, 3000):
        written = f'{{"ssl.key.password": {"[" * depth}"7d20e5anary"{"]" * depth}}}'
        assert_no_trace(problems_of(KAFKA_PRODUCER_CONFIG=written, KAFKA_TLS="true"))


@pytest.mark.parametrize("name", [name for name, kind in ALLOWED.items() if isinstance(kind, Text)])
def test_a_text_for_librdkafka_may_be_a_whole_number_and_is_known_and_no_other_number(name):
    oidc = {
        "SASL_SSL": "true", "SASL_OAUTHBEARER_CLIENT_ID": "id", "SASL_OAUTHBEARER_CLIENT_SECRET": SECRET,
        "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI": "https://host/",
    }  # fmt: skip
    written = f'{{"{name}": 9876543210123456}}'
    configuration = load_settings({**REQUIRED, **oidc, "KAFKA_PRODUCER_CONFIG": written}).kafka_configuration()
    assert configuration[name] == "9876543210123456"
    secrets = KnownSecrets(secret_values({"KAFKA_PRODUCER_CONFIG": written}, SECRET_NAMES))
    assert ("9876543210123456" in secrets.hidden("x 9876543210123456 x")) == (name == "client.id")
    for number in ("1.10", "1e2", "9876543210.123456", "true", "null"):
        said = problems_of(**oidc, KAFKA_PRODUCER_CONFIG=f'{{"{name}": {number}}}')
        assert f"{name} must be " in said


def test_no_file_of_a_setting_hangs_the_start_or_takes_memory(tmp_path, monkeypatch):
    """A pipe without a writer, a device without an end, a socket, a directory, a file of a gigabyte."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("socket")  # the whole path may be too long for one
        (tmp_path / "directory").mkdir()
        with (tmp_path / "large").open("wb") as large:
            large.truncate(1 << 30)
        (tmp_path / "nul").write_bytes(b"7d20e5\0anary")
        (tmp_path / "other").write_bytes(SECRET.encode("utf-16"))
        for path in ["/dev/zero", *map(str, tmp_path.iterdir())]:
            said = problems_of(MQTT_USER_PASSWORD_FILE=path)
            assert "MQTT_USER_PASSWORD_FILE: must " in said
            assert_no_trace(said)
            if path.rpartition("/")[2] in {"zero", "pipe", "socket"}:
                assert "MQTT_CA_FILE: must be the path of a readable file" in problems_of(
                    MQTT_CA_FILE=path, MQTT_TLS="true"
                )
    assert str(LONGEST_FILE_BYTES) in problems_of(MQTT_USER_PASSWORD_FILE=str(tmp_path / "large"))
    for name, reason in {"large": "must have at most", "other": "must be UTF-8 text"}.items():
        (tmp_path / name).rename(tmp_path / ".env")
        assert f".env: {reason}" in problems_of(RUN_MODE="DEVELOP")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\r"])
def test_a_mark_before_and_a_line_end_after_a_secret_in_a_file_are_none_of_it(ending, tmp_path):
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + DATA + ending.encode())
    settings = load_settings(REQUIRED | {"MQTT_USER_PASSWORD_FILE": str(tmp_path / "secret")})
    assert settings.mqtt_user_password is not None
    assert settings.mqtt_user_password.get_secret_value() == SECRET
