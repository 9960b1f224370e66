"""ROUTES_FILE: what may stand in it, what is said about what may not, and the examples of docs/routes.md."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tracemalloc
from pathlib import Path

import pytest
import yaml

from app.errors import SettingsError
from app.routes import MOST_ROUTES, Route, RouteTable, Template, resolve
from app.settings import load_settings
from app.settings.routes_file import LONGEST_FILE_BYTES, MOST_PROBLEMS, RoutesFileError, read_routes_file
from app.settings.routes_model import RouteEntry, routes_schema
from app.settings.yaml_text import read_yaml

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "routes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (.+?)\n.*?^```yaml\n(.*?)^```\n+(.*?)(?=^###|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
REQUIRED = {"RUN_MODE": "PRODUCTION", "MQTT_BROKER_URL": "h", "MQTT_CLIENT_ID": "x", "KAFKA_BROKER": "k"}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file of routes, and returns its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "routes.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o644)
        return path

    return write


FIELDS = [field.alias or name for name, field in RouteEntry.model_fields.items()]


def problems_of(path: Path) -> list[str]:
    """Return what is said about a file, without its name."""
    with pytest.raises(RoutesFileError) as caught:
        read_routes_file(path)
    return [problem.replace(f"'{path}', ", "") for problem in caught.value.problems]


def route(**fields: str) -> str:
    """Return a file with one route, of fields as YAML has them."""
    fields = {"name": "a", "from": "x", "to": "k"} | {name.rstrip("_"): value for name, value in fields.items()}
    return "routes:\n  - " + "\n    ".join(f"{name}: {value}" for name, value in fields.items()) + "\n"


def test_a_file_becomes_routes_with_all_that_stands_in_it(file):
    text = 'routes:\n- {name: n, from: "p/{site}/{rest#}", to: "p.{site}", key: "{rest}", headers: {h: "{site}-{1}"}}\n'
    (found,) = read_routes_file(file(text)).routes
    assert (found.name, found.mqtt_filter, found.kafka_topic) == ("n", "p/+/#", None)
    resolved = resolve(RouteTable([found]), b"p/oslo/a/b", Template("{topic}"))
    assert (resolved.kafka_topic, resolved.record_key, resolved.headers) == ("p.oslo", b"a/b", (("h", b"oslo-p"),))


def test_the_file_takes_the_place_of_the_lists(file):
    path = str(file(route()))
    assert load_settings({**REQUIRED, "ROUTES_FILE": path}).routes == (Route("a", "x", Template("k")),)
    for name in ("TOPIC_LIST", "WILDCARD_TOPIC_LIST"):
        with pytest.raises(SettingsError, match=f"{name}: must not be set together with ROUTES_FILE"):
            load_settings({**REQUIRED, "ROUTES_FILE": path, name: "b:k"})


def test_all_that_is_wrong_is_in_the_report_of_the_settings_each_with_its_variable(file):
    path = str(file("routes:\n  - {name: a, from: x, to: k/}\n  - {name: b, from: x}\n"))
    with pytest.raises(SettingsError) as caught:
        load_settings({**REQUIRED, "MQTT_QOS": "7", "ROUTES_FILE": path})
    problems = caught.value.problems
    assert len(problems) == 4
    assert sum(problem.startswith(f"ROUTES_FILE: '{path}', line ") for problem in problems) == 3
    assert sum(problem.startswith("MQTT_QOS: ") for problem in problems) == 1


def test_a_route_to_the_topic_of_dead_letters_is_refused(file):
    with pytest.raises(SettingsError, match="DEAD_LETTER_TOPIC: must be a topic of its own, but a route goes to k"):
        load_settings({**REQUIRED, "ROUTES_FILE": str(file(route())), "DEAD_LETTER_TOPIC": "k"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: routes is missing"),
        ("routes:\n", "line 1: routes: must be a list"),
        ("routes: []\n", "line 1: routes: must have at least one route"),
        ("- a\n", "line 1: must have keys with values"),
        ("route: []\nroutes: [{name: a, from: x, to: k}]\n", "line 1: the key 'route' is unknown; allowed are routes"),
        ("routes:\n  - just text\n", "line 2, route 1: must have keys with values"),
        ("routes:\n\t- name: a\n", "line 2: is indented with a tab, and YAML allows blanks only"),
        ("a: &x 1\nb: *x\n", "line 2: has an alias (*)"),
        ("[" * 1000, "nested more than 16 deep"),
        ("routes: 'a\n", "is no YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: is no YAML"),
        ("!!python/object/apply:os.system [ls]\n", "line 1: has a tag (!)"),
        (b"\xff\xfe", "must be UTF-8 text"),
        (route(key="a") + "    key: c\n", "line 6: has the key 'key' again, which stands in line 5"),
        (route(foo="1"), "line 5, route 'a': the key 'foo' is unknown; allowed are name, from, to, key"),
        ("routes:\n  - {from: x, to: k}\n", "line 2, route 1: name is missing, which is required"),
        (route(name="no"), "line 2, route 1: name: must be text, and YAML reads 'no' as true or false: quote it"),
        (route(from_="1.0"), "line 3, route 'a': from: must be text, and YAML reads '1.0' as a number: quote it"),
        (route(to="2024-01-01"), "line 4, route 'a': to: must be text, and YAML reads '2024-01-01' as a date"),
        (route(key=""), "line 5, route 'a': key: must be text, and YAML reads '' as nothing: quote it"),
        (route(headers="{h: yes}"), "headers.h: must be text, and YAML reads 'yes' as true or false"),
        (route(headers="{1: a}"), "line 5: has a key that is no text; put it into quotes"),
        (route(headers="[a]"), "headers: must have keys with values"),
        (route(headers="{mqtt-topic: a}"), "headers.mqtt-topic: Connector writes headers that begin with mqtt-, "),
        (route(headers="{Connector-id: a}"), "headers.Connector-id: Connector writes headers that begin with"),
        (route(headers="{dead-letter-reason: a}"), "Connector writes headers that begin with"),
        (route(headers="{'': a}"), "the name of a header must be 1 to 100 printable characters"),
        (route(headers="{" + ", ".join(f"h{n}: a" for n in range(17)) + "}"), "headers: must be at most 16"),
        (route(name="unmapped"), "name: must be 1 to 100 printable characters, without blanks around it"),
        (route(name=f"'{'n' * 101}'"), "name: must be 1 to 100 printable characters"),
        (route(name="' a'"), "without blanks around it"),
        (route(name='"a\\nb"'), "name: must be 1 to 100 printable characters"),
        (route(from_='"a/{x}/{x}"'), "from: the MQTT filter 'a/{x}/{x}' has the name {x} twice"),
        (route(from_='"a/{topic}"'), "names a wildcard {topic}, which means the whole topic"),
        (route(from_='"a/{x#}/b"'), "has a '#' before its end"),
        (route(from_='"a/x{y}"'), "a wildcard with a name is a whole level"),
        (route(from_='"a/{1}"'), "a wildcard with a name is a whole level"),
        (route(from_='"$share/g/{x}"'), "is a shared subscription"),
        (route(to="a/b"), "to: 'a/b' is not a legal Kafka topic"),
        (route(from_='"a/{x}"', to='"k.{y}"'), "levels from {1} on, and the names in its MQTT filter: {x}"),
        (route(from_='"a/{x}"', to='"{x}.k"'), "must begin with text that is no part of the MQTT topic"),
        (route(from_='"a/{x}"', to='"__k.{x}"'), "must begin with text that is no part of the MQTT topic"),
        (route(from_='"a/{x}"', to='"k/{x}"'), "makes no legal Kafka topic"),
        (route(from_='"a/{x}"', to='"k{{.{x}"'), "makes no legal Kafka topic"),
        (route(from_='"a/{x}"', to=f'"{"k" * 249}{{x}}"'), "to: must be a Kafka topic or a template for its name"),
        (route(key="".join(f"{{{n}}}" for n in range(1, 34)).join("''")), "that names at most 32 parts"),
        (route(from_='"a/{x}"', key='"{x}{x}{x}{x}{x}"'), "names the same part of the topic more than 4 times"),
        (route(key='"{"'), "key: the template '{' has a single '{'"),
        (route(qos="3"), "qos: must be 0, 1 or 2, not '3'"),
        (route(empty_payload="null"), "empty_payload: must be text, and YAML reads 'null' as nothing"),
        (route(empty_payload="drop"), "empty_payload: must be value or tombstone, not 'drop'"),
        (route(timestamp="property"), "timestamp: must be received, or property and the name of a user property"),
        (route(dead_letter_topic="a/b"), "dead_letter_topic: 'a/b' is not a legal Kafka topic"),
        (route(drop_oldest_above="10"), "drop_oldest_above: must be a number of bytes, at least 1048576 (1 MiB)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_what_is_allowed(file, text, expected):
    assert any(expected in problem for problem in problems_of(file(text))), problems_of(file(text))


def test_every_error_is_there_at_once_in_the_order_of_the_lines(file):
    text = (
        "routes:\n"
        "  - {name: a, from: p/+, to: k}\n"
        "  - {name: a, from: 'p/{x}', to: 'k.{y}'}\n"
        "  - {name: c, from: a#, to: k, key: '{z}', what: 1}\n"
    )
    assert [problem.split(": ")[0:2] for problem in problems_of(file(text))] == [
        ["line 3, route 'a'", "from"],
        ["line 3, route 'a'", "the route in line 2 has this name already"],
        ["line 3, route 'a'", "to"],
        ["line 4, route 'c'", "from"],
        ["line 4, route 'c'", f"the key 'what' is unknown; allowed are {', '.join(FIELDS)}"],
    ]  # fmt: skip


@pytest.mark.parametrize("separator", [", ", ",\n "], ids=["in one line", "in lines of their own"])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"name": "a"}, {"name": "a"}, "route 'a': {other} has this name already"),
        ({"from": "p/+"}, {"from": "p/+"}, "route 'b': from: {other} has the MQTT filter 'p/+' too; allowed is once"),
        ({"from": "p/{x}"}, {"from": "p/+"}, "route 'b': from: {other} has the MQTT filter 'p/+' too; allowed is once"),
        ({"from": "p/{x}/#"}, {"from": "p/{y}/{z#}"}, "route 'b': from: {other} has the MQTT filter 'p/+/#' too; "),
        (
            {"from": "p/{{"},
            {"from": "p/{{"},
            "route 'b': from: {other} has the MQTT filter 'p/{{' too; allowed is once",
        ),
        ({"to": "k"}, {"dead_letter_topic": "k"}, "must be a topic of its own, but {other} goes to 'k'"),
        ({"to": "k"}, {"to": "k", "drop_oldest_above": "1MiB"}, "own, and 'k' of {other} may have some of them"),
    ],
)
def test_routes_of_one_line_are_told_apart_as_those_of_several_are(file, first, second, expected, separator):
    """P8: of two with one name the last one's limit held for both, and two with one filter ended in a traceback."""
    routes = [{"name": "a", "from": "x/+", "to": "t"} | first, {"name": "b", "from": "y/+", "to": "u"} | second]
    (problem,) = problems_of(file(f'{{"routes": [{separator.join(map(json.dumps, routes))}]}}'))
    other = "route 1 of the file, in the same line," if separator == ", " else "the route in line 1"
    assert expected.replace("{other}", other).replace("{{", "{") in problem


def test_routes_of_one_line_that_differ_are_read(file):
    entries = [{"name": f"r{number}", "from": f"a/{number}/{{x}}", "to": "k"} for number in range(50)]
    routes = read_routes_file(file(json.dumps({"routes": entries}))).routes
    assert [route.name for route in routes] == [entry["name"] for entry in entries]


def test_thousands_of_errors_are_no_thousands_of_lines(file):
    problems = problems_of(file("routes:\n" + "  - {}\n" * 1_000))
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1].endswith(f"and {3_000 - MOST_PROBLEMS} more")


@pytest.mark.parametrize(
    ("limited", "other"),
    [
        ("k", "k"),
        ("k.x", "k.{x}"),
        ("k.{x}", "k.x"),
        ("k.{x}", "k.{x}.more"),
        ("k.{x}", "k.more.{x}"),
        ("k.more.{x}", "k.{x}"),
    ],
)
def test_a_route_with_a_limit_for_the_table_has_its_kafka_topics_for_itself(file, limited, other):
    text = (
        "routes:\n"
        f"- {{name: a, from: 'a/{{x}}', to: '{limited}', drop_oldest_above: 1GB}}\n"
        f"- {{name: b, from: 'b/{{x}}', to: '{other}'}}\n"
    )
    (problem,) = problems_of(file(text))
    assert problem == (
        f"line 2, route 'a': drop_oldest_above: the Kafka topics of '{limited}' must be the route's own, and '{other}' "
        "of the route in line 3 may have some of them: give one of both another name"
    )


@pytest.mark.parametrize(
    ("limited", "other"), [("k", "kk"), ("k", "k.{x}"), ("k.{x}", "k."), ("k.{x}.a", "k.a"), ("k.{x}", "kk.{x}")]
)
def test_other_routes_may_have_topics_of_similar_names_and_limits_too(file, limited, other):
    text = (
        "routes:\n"
        f"- {{name: a, from: 'a/{{x}}', to: '{limited}', drop_oldest_above: 1GB}}\n"
        f"- {{name: b, from: 'b/{{x}}', to: '{other}', drop_oldest_above: 1048576}}\n"
    )
    assert [route.drop_oldest_above_bytes for route in read_routes_file(file(text)).routes] == [10**9, 1048576]


def test_dead_letters_go_to_no_topic_of_a_route(file):
    text = "routes:\n- {name: a, from: a, to: k, dead_letter_topic: l}\n- {name: b, from: b, to: l}\n"
    assert problems_of(file(text)) == [
        "line 2, route 'a': dead_letter_topic: must be a topic of its own, but the route in line 3 goes to 'l'"
    ]
    text = "routes:\n- {name: a, from: a, to: k, dead_letter_topic: k.l}\n- {name: b, from: 'b/{x}', to: 'k.{x}'}\n"
    (problem,) = problems_of(file(text))
    assert problem == (
        "line 2, route 'a': dead_letter_topic: must be a topic of its own, but the template of a route can make the "
        "name 'k.l'"
    )
    path = file("routes:\n- {name: b, from: 'b/{x}', to: 'k.{x}'}\n")
    with pytest.raises(SettingsError, match=r"DEAD_LETTER_TOPIC: must be .* but the template of a route can make the"):
        load_settings({**REQUIRED, "ROUTES_FILE": str(path), "DEAD_LETTER_TOPIC": "k.l"})
    (found,) = read_routes_file(file(route(dead_letter_topic="l"))).routes
    assert found.dead_letter_topic == "l"


@pytest.mark.parametrize("default", ["{topic}", ""])
def test_a_route_whose_tombstones_would_have_no_key_is_refused(file, default):
    """Kafka would refuse each of them, as it could not know what they delete."""
    (problem,) = problems_of(file(route(empty_payload="tombstone", key='""')))
    assert problem.startswith("line 5, route 'a': empty_payload: a tombstone deletes the record of its key, and")
    path = file(route(empty_payload="tombstone"))
    settings = {**REQUIRED, "ROUTES_FILE": str(path), "RECORD_KEY": default}
    if default:
        assert load_settings(settings).routes[0].makes_tombstones
        return
    with pytest.raises(SettingsError) as caught:
        load_settings(settings)
    (problem,) = caught.value.problems
    assert problem.startswith("RECORD_KEY: must not be empty: the route a of ROUTES_FILE makes tombstones")


def test_a_file_that_is_too_large_or_not_there_or_writable_by_everybody_is_refused(file, tmp_path, monkeypatch):
    assert f"must have at most {LONGEST_FILE_BYTES} bytes" in problems_of(file("#" * (LONGEST_FILE_BYTES + 1)))[0]
    assert "must be the path of a readable file" in problems_of(tmp_path / "missing.yaml")[0]
    path = file(route())
    path.chmod(0o666)
    assert "everybody on this host may write to it" in problems_of(path)[0]
    monkeypatch.chdir(path.parent)
    assert problems_of(Path(path.name))[0].startswith(f"must be the path of a readable file; {path.name!r}: everybody")
    assert "looked for in the working directory: No such file" in problems_of(Path("missing.yaml"))[0]


def many(count: int) -> str:
    """Return a file with many routes."""
    routes = "".join(f"  - {{name: r{n}, from: 'a{n}/{{x}}', to: 'k{n}.{{x}}'}}\n" for n in range(count))
    return f"routes:\n{routes}"


def test_the_largest_files_are_read_and_larger_ones_refused(file):
    assert len(read_routes_file(file(many(MOST_ROUTES))).routes) == MOST_ROUTES
    assert problems_of(file(many(MOST_ROUTES + 1))) == [f"line 1: routes: must be at most {MOST_ROUTES}"]


def test_a_file_is_read_without_a_tree_of_all_that_is_in_it(file):
    """To look for garbage in that tree, and to free it, held up all threads: messages waited at each reload."""
    text = many(1_000)
    tracemalloc.start()
    try:
        read_yaml(text)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def calls(work) -> int:
    """Return how many functions are called, those in C included."""
    counted = 0

    def count(_frame, event, _argument):
        nonlocal counted
        counted += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


SHAPES = {
    "topics, and templates that begin alike, with limits": lambda n: (
        [{"to": f"p.x{i}", "drop_oldest_above": "1MiB"} for i in range(n)] + [{"to": f"p.{{1}}.y{i}"} for i in range(n)]
    ),
    "templates with limits, and topics": lambda n: (
        [{"to": f"p{i}.{{1}}", "drop_oldest_above": "1MiB"} for i in range(n)] + [{"to": f"q.{i}"} for i in range(n)]
    ),
    "topics for dead letters, and templates that begin alike": lambda n: (
        [{"dead_letter_topic": f"q.{i}"} for i in range(n)] + [{"to": f"q.{{1}}.y{i}"} for i in range(n)]
    ),
    "topics for dead letters, and templates": lambda n: (
        [{"dead_letter_topic": f"q.{i}"} for i in range(n)] + [{"to": f"q{i}.{{1}}"} for i in range(n)]
    ),
    "one name": lambda n: [{"name": "r"}] * n,
    "one filter": lambda n: [{"from": "a/+"}] * n,
    "one topic with limits": lambda n: [{"to": "k", "drop_oldest_above": "1MiB"}] * n,
    "routes with all that there may be": lambda n: (
        [{"to": "k.{1}", "key": "{1}", "headers": {f"h{i}": "{1}{topic}" for i in range(16)}}] * n
    ),
    "long filters": lambda n: [{"from": "/".join([f"{{x{i}}}" for i in range(2 * n)] + ["#"])}],
    "long keys": lambda n: [{"key": "{{" * 20 * n}],
    "wrong fields": lambda n: [{f"x{i}": "" for i in range(2 * n)}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_twice_as_large_takes_twice_the_time(file, shape):
    """P6: a file of a setting hangs no start, and no reload: some shapes took the square, which is minutes."""

    def read(number):
        given = SHAPES[shape](number)
        routes = [{"name": f"r{i}", "from": f"a{i}/+", "to": "k", **each} for i, each in enumerate(given)]
        path = file('{"routes": [' + ",\n".join(map(json.dumps, routes)) + "]}")
        return calls(lambda: _read(path))

    read(20)  # what is made once is made by now
    assert read(200) < 2.5 * read(100)


def _read(path: Path) -> None:
    with contextlib.suppress(RoutesFileError):
        read_routes_file(path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0])
def test_the_examples_of_the_documents_do_what_is_written_there(file, example):
    _, text, told = example
    settings = load_settings({**REQUIRED, "ROUTES_FILE": str(file(text))})
    lines = re.findall(r"^\| `.*", told, re.MULTILINE)
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert rows
    for mqtt_topic, name, kafka_topic, key, headers in rows:
        resolved = resolve(RouteTable(settings.routes), mqtt_topic.encode(), Template("{topic}"))
        assert resolved.matches[0].name == name
        if kafka_topic.startswith("dead letter"):
            assert resolved.problem == kafka_topic.removeprefix("dead letter: `")
            continue
        assert resolved.kafka_topic == kafka_topic
        assert resolved.record_key == (None if key == "none" else key.encode())
        assert " ".join(f"{header}={value.decode()}" for header, value in resolved.headers) == headers


def test_the_documents_have_the_examples():
    assert [title for title, _, _ in EXAMPLES] == [
        "A fleet with sites", "Tenants with topics of their own", "The last value of each device",
        "Devices' own time", "Several filters on one topic",
    ]  # fmt: skip


def test_editors_get_a_schema_that_takes_the_examples_and_describes_each_field(file):
    import jsonschema  # noqa: PLC0415, it takes a second to load

    schema = json.loads(json.dumps(routes_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for _, text, _ in EXAMPLES:
        validator.validate(yaml.safe_load(text))
    fields = schema["$defs"]["RouteEntry"]["properties"]
    assert len(fields) == len(RouteEntry.model_fields)
    assert all(len(field["description"]) > 20 for field in fields.values())
    for wrong in ("routes: []", "routes: [{name: a, from: x}]", route(key=""), route(name="no"), route(form="x")):
        assert list(validator.iter_errors(yaml.safe_load(wrong))), wrong
