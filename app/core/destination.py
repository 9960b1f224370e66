"""The Kafka topic that messages go to, as far as a message knows it."""

from __future__ import annotations

from typing import Any


class Destination:
    """The Kafka topic that messages go to.

    Attributes:
        topic: Its name; empty for messages that belong to no route.
        prefix: What the keys of its entries in the table begin with.
        reports: Where delivery reports put their messages.
    """

    __slots__ = ("__weakref__", "prefix", "reports", "topic")

    def __init__(self, topic: str, prefix: bytes, reports: list[Any]) -> None:
        self.topic = topic
        self.prefix = prefix
        self.reports = reports
