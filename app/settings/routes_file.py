"""ROUTES_FILE: reads the file of named routes, and says everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.routes import DerivedNames, OwnTopics, Route, parse_kafka_topic, parse_pattern
from app.settings.files import filter_shown, name_shown, path_shown, shown, text_in, value_shown
from app.settings.routes_model import RouteEntry, RoutesEntries
from app.settings.yaml_text import Document, read_yaml

LONGEST_FILE_BYTES = 4 * 1024 * 1024  # of 20,000 routes
MOST_PROBLEMS = 100
_ALLOWED_KEYS = ", ".join(field.alias or name for name, field in RouteEntry.model_fields.items())


@dataclass(frozen=True, slots=True)
class RoutesFile:
    """The routes of a file.

    Attributes:
        path: Where it is.
        routes: Its routes, as written.
    """

    path: Path
    routes: tuple[Route, ...]


class RoutesFileError(ValueError):
    """A file of routes is wrong.

    Attributes:
        problems: One sentence per problem, each with the file, and where there is one, the line and the route.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def read_routes_file(path: Path) -> RoutesFile:
    """Read a file of routes.

    Raises:
        RoutesFileError: It cannot be read, or something in it is wrong.
    """
    try:
        text = text_in(path, most_bytes=LONGEST_FILE_BYTES)
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    else:
        return RoutesFile(path, _routes(name_shown(path), text))
    raise RoutesFileError([f"must be the path of a readable file; {path_shown(path)}: {reason}"])


def _routes(file: str, text: str) -> tuple[Route, ...]:
    try:
        document = read_yaml(text)
    except ValueError as error:
        raise RoutesFileError([f"{file}, {error}"]) from None
    entries, errors = _validated(document.value if document.value is not None else {})
    found = [(line, "", problem) for line, problem in document.problems]
    found += [_told(document, error) for error in errors]
    found += [
        *_repeated(document),
        *_mixed_topics(document),
        *_made_topics(document, entries.routes if entries else ()),
        *_shared_topics(document, entries.routes if entries else ()),
    ]
    if found or entries is None:
        raise RoutesFileError(_sentences(file, found))
    return tuple(entry.route() for entry in entries.routes)


def _validated(value: Any) -> tuple[RoutesEntries | None, list[ErrorDetails]]:
    try:
        return RoutesEntries.model_validate(value), []
    except ValidationError as error:
        return None, error.errors(include_input=False, include_url=False)


def _sentences(file: str, found: Iterable[tuple[int, str, str]]) -> list[str]:
    """Return what was found as sentences, in the order of the lines, and not more of them than anybody reads."""
    sentences = [f"{file}, line {line}{route}: {problem}" for line, route, problem in sorted(dict.fromkeys(found))]
    if len(sentences) > MOST_PROBLEMS:
        sentences[MOST_PROBLEMS:] = [f"{file}: and {len(sentences) - MOST_PROBLEMS} more"]
    return sentences


def _entries(document: Document) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the routes as they are written, and their numbers from 0 on."""
    routes = document.value.get("routes") if isinstance(document.value, dict) else None
    for number, entry in enumerate(routes if isinstance(routes, list) else ()):
        if isinstance(entry, dict):
            yield number, entry


def _named(document: Document, number: int) -> str:
    entry = document.value["routes"][number]
    name = entry.get("name") if isinstance(entry, dict) else None
    return f", route {value_shown(name)}" if isinstance(name, str) else f", route {number + 1}"


def _other(document: Document, number: int, other: int) -> str:
    """Return how a problem of a route calls another one; in one line, as in JSON, there may be many."""
    line = document.line_of(("routes", other))
    if other == number:
        return "the route itself"
    if line == document.line_of(("routes", number)):
        return f"route {other + 1} of the file, in the same line,"
    return f"the route in line {line}"


def _told(document: Document, error: ErrorDetails) -> tuple[int, str, str]:
    """Return line, route and sentence of what pydantic found."""
    place = tuple(part for part in error["loc"] if part != "[key]")
    of_route = len(place) > 1 and place[0] == "routes"
    route = _named(document, int(place[1])) if of_route else ""
    within = [str(part) for part in place[2 if of_route else 0 :]]
    return document.line_of(place), route, _sentence(error, within)


def _sentence(error: ErrorDetails, within: list[str]) -> str:
    field = shown(within[-1]) if within else ""
    kind = error["type"]
    if kind == "missing":
        return f"{within[-1]} is missing, which is required"
    if kind == "extra_forbidden":
        return f"the key {field} is unknown; allowed are {_ALLOWED_KEYS if len(error['loc']) > 1 else 'routes'}"
    said = {
        "model_type": "must have keys with values, as in `name: lines`",
        "dict_type": 'must have keys with values, as in `site: "{site}"`',
        "list_type": "must be a list, in which each route begins with `- name: `",
        "too_short": "must have at least one route",
        "too_long": f"must be at most {error.get('ctx', {}).get('max_length')}",
    }.get(kind) or (str(error["ctx"]["error"]) if kind == "value_error" else error["msg"])
    return f"{'.'.join(within)}: {said}" if within else said


def _repeated(document: Document) -> Iterator[tuple[int, str, str]]:
    """Iterate over names and filters that another route has already, whatever else is wrong."""
    names: dict[str, int] = {}
    filters: dict[str, int] = {}
    for number, entry in _entries(document):
        name, pattern = entry.get("name"), entry.get("from")
        line = document.line_of(("routes", number))
        if isinstance(name, str) and (other := names.setdefault(name, number)) != number:
            yield line, _named(document, number), f"{_other(document, number, other)} has this name already"
        try:
            mqtt_filter = parse_pattern(pattern).mqtt_filter if isinstance(pattern, str) else ""
        except ValueError:
            continue
        if mqtt_filter and (other := filters.setdefault(mqtt_filter, number)) != number:
            told = f"{_other(document, number, other)} has the MQTT filter {filter_shown(mqtt_filter)} too"
            yield line, _named(document, number), f"from: {told}; allowed is once"


def _mixed_topics(document: Document) -> Iterator[tuple[int, str, str]]:
    """Iterate over topics for dead letters to which other messages go, whatever else is wrong."""
    topics: dict[str, int] = {}
    for number, entry in _entries(document):
        if isinstance(topic := entry.get("to"), str):
            topics.setdefault(topic, number)
    for number, entry in _entries(document):
        topic = entry.get("dead_letter_topic")
        if isinstance(topic, str) and topic in topics:
            line = document.line_of(("routes", number, "dead_letter_topic"))
            told = f"{_other(document, number, topics[topic])} goes to {value_shown(topic)}"
            yield line, _named(document, number), f"dead_letter_topic: must be a topic of its own, but {told}"


def _made_topics(document: Document, entries: Sequence[RouteEntry]) -> Iterator[tuple[int, str, str]]:
    """Iterate over topics for dead letters that publishers could write to, as a template can make their names."""
    topics = {entry.dead_letter_topic for entry in entries if entry.dead_letter_topic is not None}
    if not topics:
        return
    names = DerivedNames(parse_kafka_topic(entry.to, parse_pattern(entry.from_).captures) for entry in entries)
    made = {topic for topic in topics if names.may_have(topic)}
    for number, entry in enumerate(entries):
        if entry.dead_letter_topic in made:
            line = document.line_of(("routes", number, "dead_letter_topic"))
            told = f"the template of a route can make the name {value_shown(entry.dead_letter_topic)}"
            yield line, _named(document, number), f"dead_letter_topic: must be a topic of its own, but {told}"


def _shared_topics(document: Document, entries: Sequence[RouteEntry]) -> Iterator[tuple[int, str, str]]:
    """Iterate over routes with a limit for the table whose Kafka topics may have messages of others too."""
    if all(entry.drop_oldest_above is None for entry in entries):
        return
    topics = OwnTopics([parse_kafka_topic(entry.to, parse_pattern(entry.from_).captures) for entry in entries])
    for number, entry in enumerate(entries):
        if entry.drop_oldest_above is None or (other := topics.shared_with(number)) is None:
            continue
        line = document.line_of(("routes", number, "drop_oldest_above"))
        of_other = f"{value_shown(entries[other].to)} of {_other(document, number, other)}"
        told = (
            f"the Kafka topics of {value_shown(entry.to)} must be the route's own, and {of_other} may have some of them"
        )
        yield line, _named(document, number), f"drop_oldest_above: {told}: give one of both another name"
