"""The four channels to the agents, from the MQTT source, the Kafka side and the replay reader; each has one agent.

What goes through each of them is in `app.core.requests`: `inbound` batches to route, `undelivered` all requests to the
table writer, `delivered` messages to remove, `restored` chunks to replay. An item is put in without waiting, so that
the order of the items is that of the decisions. The channels are not bounded here: what may be in them is bounded by
the memory budget (what is in memory alone) and by what may be in flight. A channel without a subscriber drops what it
is sent, so agents start before the MQTT source.
"""

from __future__ import annotations

from typing import Any

from faust.channels import Channel

from app.application import app
from app.core.message import Message
from app.core.requests import ReplayChunk, TableRequest


class OrderedChannel(Channel):  # type: ignore[misc, type-arg]  # Faust's types are not checked
    """A channel into which an item is put at once: its queue has no bound, so nothing would have to wait."""

    def put_now(self, item: Any) -> None:
        """Put an item in, for the agent of the channel."""
        for subscriber in self._subscribers:
            subscriber.queue.put_nowait(item)


inbound = OrderedChannel(app, maxsize=0)
undelivered = OrderedChannel(app, maxsize=0)
delivered = OrderedChannel(app, maxsize=0)
restored = OrderedChannel(app, maxsize=0)


class ToAgents:
    """Carries requests to the agents; see `app.core.requests.Requests`."""

    @staticmethod
    def ask_table(request: TableRequest) -> None:
        """Have the table writer do something."""
        undelivered.put_now(request)

    @staticmethod
    def remove(messages: list[Message]) -> None:
        """Have stored messages removed from the table, as Kafka has them."""
        delivered.put_now(messages)

    @staticmethod
    def replay(chunk: ReplayChunk) -> None:
        """Have what was read from the table handed to librdkafka."""
        restored.put_now(chunk)
