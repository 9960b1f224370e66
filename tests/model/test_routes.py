"""The route matcher beside a naive one, written from section 4.7 of MQTT 5, for filters and topics of every kind."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.routes import Route, RouteTable, has_wildcard, validate_topic_filter

# A level of a topic: seldom-used characters too, and bytes that are not UTF-8 as Connector keeps them.
words = st.sampled_from(("", "a", "b", "$", "$SYS", "ab", "ü"))
any_text = st.text(st.characters(exclude_characters="/+#\0", exclude_categories=("Cs",)), max_size=3)
topic_levels = st.one_of(words, words, any_text, st.sampled_from(("+", "#", "\udcff", "a+")))
filter_levels = st.one_of(words, words, any_text, st.just("+"))


def joined(levels):
    return st.lists(levels, min_size=1, max_size=5).map("/".join)


filters = st.builds(lambda text, end: f"{text}{end}", joined(filter_levels), st.sampled_from(("", "", "/#"))) | st.just(
    "#"
)
legal_filters = filters.filter(lambda text: text and not text.startswith("$share/"))
some = st.lists(legal_filters, min_size=1, max_size=12, unique=True)


@st.composite
def hundreds(draw):
    """Draw a few levels, and make every filter of up to three of them, in any order."""
    vocabulary = draw(st.lists(filter_levels, min_size=4, max_size=6, unique=True))
    paths = ["/".join(levels) for depth in (1, 2, 3) for levels in itertools.product(vocabulary, repeat=depth)]
    texts = [text for path in paths for text in (path, f"{path}/#") if text]
    draw(st.randoms(use_true_random=False)).shuffle(texts)
    return texts


def matches(mqtt_filter, topic):
    """Tell whether a filter matches a topic, one rule of the specification after the other."""
    if topic.startswith("$") and mqtt_filter[0] in "+#":  # 4.7.2: wildcards leave out what is the broker's own
        return False
    return levels_match(mqtt_filter.split("/"), topic.split("/"))


def levels_match(wanted, levels):
    if wanted[:1] == ["#"]:  # 4.7.1.2: the parent and any number of child levels
        return True
    if not wanted or not levels:
        return wanted == levels
    if wanted[0] not in ("+", levels[0]):  # 4.7.1.3: one level, which may be empty; 4.7.3: no normalisation
        return False
    return levels_match(wanted[1:], levels[1:])


def split(texts, moved):
    """Return exact and wildcard mappings; some of those without wildcard are written among the wildcard ones."""
    exact = [text for place, text in enumerate(texts) if not has_wildcard(text) and place % 7 not in moved]
    wildcard = [text for text in texts if text not in set(exact)]
    return [Route.of(text, f"exact{n}") for n, text in enumerate(exact)], [
        Route.of(text, f"wildcard{n}") for n, text in enumerate(wildcard)
    ]


@st.composite
def topics_like(draw, texts):
    """Draw a topic that has a chance to match: a filter with its wildcards filled in, or one of no relation."""
    levels = []
    for level in draw(st.sampled_from(texts)).split("/"):
        if level == "#":
            levels += draw(st.lists(topic_levels, max_size=3))
        elif level == "+":
            levels.append(draw(topic_levels))
        else:
            levels.append(level)
    return "/".join(draw(st.sampled_from((levels, levels, levels[:-1], [*levels, ""], ["$", *levels]))))


@given(some, st.sets(st.integers(0, 6)), st.data())
def test_few_mappings_match_as_the_specification_says_in_their_order_of_precedence(texts, moved, data):
    """P4: exact mappings first, then those of the wildcard list as they are written."""
    compare(texts, moved, data.draw(st.lists(topics_like(texts) | joined(topic_levels), min_size=1, max_size=8)))


@given(hundreds(), st.sets(st.integers(0, 6)), st.data())
def test_hundreds_of_mappings_match_as_the_specification_says_in_their_order_of_precedence(texts, moved, data):
    """P4: the same where every level of the tree has many branches."""
    compare(texts, moved, data.draw(st.lists(topics_like(texts), min_size=5, max_size=20)))


def compare(texts, moved, topics):
    exact, wildcard = split(texts, moved)
    table = RouteTable([*exact, *wildcard])
    for topic in topics:
        expected = [mapping for mapping in (*exact, *wildcard) if matches(mapping.mqtt_filter, topic)]
        assert table.matches(topic) == expected, topic


@given(legal_filters)
def test_every_filter_that_the_specification_allows_is_accepted(text):
    """P4: else a mapping that an operator may write would have no effect."""
    validate_topic_filter(text)


@given(st.text(st.sampled_from("a/+#\0\ud800$"), max_size=6))
def test_a_filter_that_is_accepted_has_its_wildcards_where_the_specification_allows_them(text):
    """P4: a wildcard in another place would never match, or match too much."""
    try:
        validate_topic_filter(text)
    except ValueError:
        return
    *levels, last = text.split("/")
    assert text.encode().find(b"\0") == -1
    assert all(level == "+" or not has_wildcard(level) for level in levels)
    assert last in ("+", "#") or not has_wildcard(last)
