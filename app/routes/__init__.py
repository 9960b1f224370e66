"""The rules from an MQTT topic to a Kafka record, as pure functions: which mapping matches, which key the record gets.

Nothing in here reads settings, logs or keeps state between calls.
"""

from app.routes.identifiers import MAX_SUBSCRIPTION_IDENTIFIER, subscription_identifiers
from app.routes.keys import RecordKey
from app.routes.mappings import Mapping, has_wildcard, validate_kafka_topic, validate_topic_filter
from app.routes.shared import check_room_for_group, plain_filter, shared_filter, validate_shared_group
from app.routes.table import RouteTable

__all__ = [
    "MAX_SUBSCRIPTION_IDENTIFIER",
    "Mapping",
    "RecordKey",
    "RouteTable",
    "check_room_for_group",
    "has_wildcard",
    "plain_filter",
    "shared_filter",
    "subscription_identifiers",
    "validate_kafka_topic",
    "validate_shared_group",
    "validate_topic_filter",
]
