"""The rules from an MQTT topic to a Kafka record: which route matches, and what record it makes.

Nothing in here reads settings or logs. `RouteTable` and `DerivedNames` alone change, when a reload brings other routes.

- `filters`: MQTT filters, and wildcards with names.
- `templates`: texts that are made from an MQTT topic.
- `kafka_topics`: names of Kafka topics, also derived ones.
- `own_topics`: which routes have Kafka topics that are theirs alone.
- `route`: one route.
- `table`: which routes match a topic.
- `shadows`: routes that can never match.
- `overlap_bound`: how much filters may overlap.
- `differences`: what is new in other routes.
- `resolving`: what becomes of the messages of a topic.
- `identifiers`: subscription identifiers.
- `shared`: shared subscriptions.
"""

from app.routes.differences import Differences, differences
from app.routes.filters import has_wildcard, parse_pattern, validate_topic_filter
from app.routes.identifiers import MAX_SUBSCRIPTION_IDENTIFIER, subscription_identifiers
from app.routes.kafka_topics import (
    ILLEGAL_KAFKA_TOPIC,
    TOO_MANY_KAFKA_TOPICS,
    DerivedNames,
    parse_kafka_topic,
    validate_kafka_topic,
)
from app.routes.overlap_bound import check_overlaps
from app.routes.own_topics import OwnTopics
from app.routes.resolving import (
    INVALID_MQTT_TOPIC,
    Resolved,
    filters_of,
    resolve,
    resolve_by,
    topic_problem,
    topic_text,
)
from app.routes.route import EMPTY_PAYLOADS, Route
from app.routes.shadows import Shadowed, shadowed
from app.routes.shared import check_room_for_group, plain_filter, shared_filter, validate_shared_group
from app.routes.table import MOST_ROUTES, RouteTable
from app.routes.templates import MOST_PARTS, Level, Template

__all__ = [
    "EMPTY_PAYLOADS",
    "ILLEGAL_KAFKA_TOPIC",
    "INVALID_MQTT_TOPIC",
    "MAX_SUBSCRIPTION_IDENTIFIER",
    "MOST_PARTS",
    "MOST_ROUTES",
    "TOO_MANY_KAFKA_TOPICS",
    "DerivedNames",
    "Differences",
    "Level",
    "OwnTopics",
    "Resolved",
    "Route",
    "RouteTable",
    "Shadowed",
    "Template",
    "check_overlaps",
    "check_room_for_group",
    "differences",
    "filters_of",
    "has_wildcard",
    "parse_kafka_topic",
    "parse_pattern",
    "plain_filter",
    "resolve",
    "resolve_by",
    "shadowed",
    "shared_filter",
    "subscription_identifiers",
    "topic_problem",
    "topic_text",
    "validate_kafka_topic",
    "validate_shared_group",
    "validate_topic_filter",
]
