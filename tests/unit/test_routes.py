"""The matching rules against the specification, the record key, the subscription identifiers."""

import random
import re
import time

import pytest

from app.routes import (
    MAX_SUBSCRIPTION_IDENTIFIER,
    Level,
    Route,
    RouteTable,
    Template,
    identifiers,
    subscription_identifiers,
    validate_kafka_topic,
    validate_topic_filter,
)
from app.routes.templates import MOST_PARTS

# The examples of MQTT 5, section 4.7, and what follows from its rules: filter, topic, whether it matches.
SPECIFICATION = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/tennis/player1/#", "sport/tennis/player10", False),
    ("sport/#", "sport", True),
    ("#", "sport/tennis", True),
    ("#", "/", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/tennis/+", "sport/tennis", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("+/tennis/#", "sport/tennis", True),
    ("+/tennis/#", "/tennis/a", True),
    ("+/a/#", "b", False),
    ("sport/+/player1", "sport//player1", True),
    ("sport/+/player1", "sport/tennis/player1", True),
    ("#", "$SYS/monitor", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("+/#", "$SYS", False),
    ("$SYS/#", "$SYS", True),
    ("$SYS/#", "$SYS/monitor", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    ("a/#", "a/$b", True),
    ("a/+", "a/$b", True),
    ("ACCOUNTS", "Accounts", False),
    ("/finance", "finance", False),
    ("a", "a/", False),
    ("größe/+/🌡", "größe/ß/🌡", True),
    ("a/+", "a/\udcff", True),
    ("e\u0301", "\u00e9", False),
]


def matches_by_the_specification(mqtt_filter: str, topic: str) -> bool:
    """Section 4.7, sentence by sentence and as slow as it likes."""
    if topic.startswith("$") and mqtt_filter[0] in "+#":
        return False
    filter_levels, topic_levels = mqtt_filter.split("/"), topic.split("/")
    for place, level in enumerate(filter_levels):
        if level == "#":
            return len(topic_levels) >= place
        if place >= len(topic_levels) or level not in ("+", topic_levels[place]):
            return False
    return len(filter_levels) == len(topic_levels)


@pytest.mark.parametrize(("mqtt_filter", "topic", "expected"), SPECIFICATION)
def test_the_examples_of_the_specification_hold(mqtt_filter, topic, expected):
    mapping = Route.of(mqtt_filter, "kafka")
    assert matches_by_the_specification(mqtt_filter, topic) == expected
    assert RouteTable([mapping]).matches(topic) == ([mapping] if expected else [])


def generated_topic(generator: random.Random, wildcards: bool) -> str:
    words = ["a", "b", "c", "", "$x", "ü", "\udc80"] + (["+", "+", "+"] if wildcards else ["+", "#"])
    if wildcards:
        words.remove("\udc80")
    levels = [generator.choice(words) for _ in range(generator.randint(1, 5))]
    if wildcards and generator.random() < 0.3:
        levels[-1] = "#"
    return "/".join(levels)


@pytest.mark.parametrize("seed", range(10))
def test_all_matches_are_found_in_their_order_of_precedence(seed):
    """P4: exact mappings first, then wildcard mappings in their written order."""
    generator = random.Random(seed)
    filters = dict.fromkeys(generated_topic(generator, wildcards=True) for _ in range(200))
    filters.pop("", None)
    exact = [Route.of(text, "exact") for text in filters if not {"+", "#"} & set(text.split("/"))]
    wildcard = [Route.of(text, "wildcard") for text in filters if {"+", "#"} & set(text.split("/"))]
    assert exact
    assert wildcard
    table = RouteTable([*exact, *wildcard])
    assert table.routes == (*exact, *wildcard)
    for _ in range(1000):
        topic = generated_topic(generator, wildcards=False)
        expected = [each for each in table.routes if matches_by_the_specification(each.mqtt_filter, topic)]
        assert table.matches(topic) == expected, topic


def test_a_filter_without_wildcard_in_the_wildcard_list_keeps_its_place():
    wildcard = [Route.of("a/+", "first"), Route.of("a/b", "second"), Route.of("#", "third")]
    exact = [Route.of("a/c", "exact")]
    table = RouteTable([*exact, *wildcard])
    assert [mapping.kafka_topic for mapping in table.matches("a/b")] == ["first", "second", "third"]
    assert [mapping.kafka_topic for mapping in table.matches("a/c")] == ["exact", "first", "third"]


def test_a_filter_that_is_mapped_twice_is_refused():
    with pytest.raises(ValueError, match="more than once"):
        RouteTable([Route.of("a", "x"), Route.of("a", "y")])


def test_a_look_up_does_not_cost_more_with_more_mappings():
    def nodes_visited(count: int) -> float:
        table = RouteTable(
            [Route.of(f"exact/{number}", "k") for number in range(count)]
            + [Route.of(f"site{number}/+/temperature", "k") for number in range(count)],
        )
        start = time.process_time()
        for _ in range(5000):
            assert len(table.matches("site7/machine/temperature")) == 1
        return time.process_time() - start

    few = min(nodes_visited(10) for _ in range(3))
    # A scan would take a thousand times as long; 10 leaves room for a busy machine.
    assert min(nodes_visited(10_000) for _ in range(3)) < 10 * few


def test_filters_and_topics_with_very_many_levels_are_no_problem():
    mapping = Route.of("/".join("+" * 32768), "k")
    assert RouteTable([mapping]).matches("/".join("a" * 32768)) == [mapping]
    assert RouteTable([mapping]).matches("/".join("a" * 32767)) == []


def test_the_text_of_a_mapping_is_the_label_of_its_metrics():
    assert Route.of("a/+:b", "k").name == "a/+:b:k"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("a/#/b", "must be the last level"),
        ("#/a", "must be the last level"),
        ("a#", "mixes '#'"),
        ("a/b#", "mixes '#'"),
        ("##", "mixes '#'"),
        ("a+", "mixes '+'"),
        ("+a/b", "mixes '+'"),
        ("++", "mixes '+'"),
        ("ä" * 32768, "65536 bytes"),
        ("a/\udcff", "not valid UTF-8"),
        ("a/\ud800", "not valid UTF-8"),
        ("$share/group/a", "shared subscription"),
        ("$oshare/group/a", "set MQTT_SHARED_GROUP"),
        ("$queue/a", "set MQTT_SHARED_GROUP"),
        ("$exclusive/a", "write the plain filter"),
        ("$delayed/5/a", "write the plain filter"),
    ],
)
def test_an_illegal_filter_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        validate_topic_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "#",
        "+",
        "/",
        "a//b",
        "+/#",
        "$SYS/#",
        "$aws/things/+/shadow",
        "$queue",
        "$shared/a",
        "ä/+/ß",
        "a b",
        "a" * 65535,
        "a:b",
        "/#",
    ],
)
def test_a_legal_filter_is_accepted(text):
    validate_topic_filter(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "ä", "a" * 250, "a\n", "a:b"])
def test_an_illegal_kafka_topic_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match="allowed are 1 to 249 characters of a-z"):
        validate_kafka_topic(text)


@pytest.mark.parametrize("text", ["a", "...", "A.b_c-9", "a" * 249])
def test_a_legal_kafka_topic_is_accepted(text):
    validate_kafka_topic(text)


@pytest.mark.parametrize(
    ("template", "topic", "key"),
    [
        ("{topic}", "a/b", b"a/b"),
        ("{1}", "a/b", b"a"),
        ("{2}-{1}", "a/b", b"b-a"),
        ("{3}", "a/b", b""),
        ("{1}", "/b", b""),
        ("{10}", "1/2/3/4/5/6/7/8/9/ten", b"ten"),
        ("{{{1}}}", "a/b", b"{a}"),
        ("{{topic}}", "a/b", b"{topic}"),
        ("fixed", "a/b", b"fixed"),
        ("ü{topic}", "größe/\udcff", "ügröße/".encode() + b"\xff"),
        ("{1}", "{topic}/b", b"{topic}"),
        ("", "a/b", None),
    ],
)
def test_the_record_key_is_made_from_its_template(template, topic, key):
    assert Template(template).render(topic) == key


@pytest.mark.parametrize(
    "template", ["{0}", "{x}", "{-1}", "{}", "{1", "1}", "{topic}}", "{{1}", "{01}", "{ 1}", "{1!r}"]
)
def test_a_wrong_record_key_template_is_refused_with_a_sentence(template):
    with pytest.raises(ValueError, match=r"allowed are \{topic\} and levels|a brace as such is written"):
        Template(template)


def test_a_record_key_template_that_cannot_be_encoded_is_refused():
    with pytest.raises(ValueError, match="not valid UTF-8"):
        Template("\ud800")


def test_record_keys_compare_by_template():
    assert Template("{1}") == Template("{1}") != Template("{2}")


def test_the_subscription_identifier_of_a_filter_depends_on_its_text_alone():
    """P4: queued copies carry the identifiers of an earlier configuration."""
    alone = subscription_identifiers(["a/+"])["a/+"]
    many = [f"b/{number}" for number in range(1000)]
    assert subscription_identifiers([*many, "a/+"])["a/+"] == alone
    # Written down, as a new release must not change it either.
    pinned = {"#": 85644384, "a/+": 49422655, "größe": 146846011}
    assert subscription_identifiers(["a/+", "#", "größe"]) == pinned


def test_subscription_identifiers_are_legal_and_unique():
    given = subscription_identifiers(f"site/{number}/+" for number in range(50_000))
    assert len(set(given.values())) == len(given) == 50_000
    assert min(given.values()) >= 1
    assert max(given.values()) <= MAX_SUBSCRIPTION_IDENTIFIER == 268_435_455


def test_colliding_identifiers_are_resolved_alike_whatever_the_order(monkeypatch):
    monkeypatch.setattr(identifiers, "MAX_SUBSCRIPTION_IDENTIFIER", 12)
    filters = [f"f{number}" for number in range(10)]
    expected = subscription_identifiers(filters)
    assert len(set(expected.values())) == 10
    generator = random.Random(1)
    for _ in range(20):
        generator.shuffle(filters)
        assert subscription_identifiers(filters) == expected
    first = min(filters)
    assert expected[first] == subscription_identifiers([first])[first]


def test_the_parts_that_a_template_names_are_not_each_compared_with_all_others():
    """A key of 16,000 levels took 16 seconds, and one of 60,000 kept every reload from its answer."""
    compared = 0

    class Part(Level):
        __hash__ = Level.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return Level.__eq__(self, other)

    captures = {f"x{number}": Part(number) for number in range(1, MOST_PARTS + 1)}
    template = Template("".join(f"{{{name}}}" for name in captures), captures)
    assert template.render("/".join("a" * MOST_PARTS)) == b"a" * MOST_PARTS
    assert compared <= MOST_PARTS


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b", "a")])
def test_no_table_has_two_routes_of_one_name(names):
    """P8: the second one's limit, and its topic for dead letters, would hold for both."""
    with pytest.raises(ValueError, match="the same name"):
        RouteTable([Route(name, f"{number}/#", Template("k")) for number, name in enumerate(names)])
