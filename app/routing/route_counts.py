"""What each route did since the start, as `connector routes` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from app.core.accounts import Account
from app.metrics import accounts

if TYPE_CHECKING:
    from app.routes import RouteTable


class RouteCounts(TypedDict):
    """One route; its filter and Kafka topic are empty if it is none of the settings (any more).

    Attributes:
        route: Its name.
        filter: Its MQTT filter.
        to: Its Kafka topic, or the template for its name.
        received: Messages that came, and those that the table held at the start.
        delivered: Messages that Kafka has.
        stored: Messages that were written to the table.
        dead_letters: Messages that became dead letters.
        dropped: Messages that were given up.
        waiting: Messages that are neither with Kafka nor given up.
    """

    route: str
    filter: str
    to: str
    received: int
    delivered: int
    stored: int
    dead_letters: int
    dropped: int
    waiting: int


def count_routes(routes: RouteTable) -> Iterator[RouteCounts]:
    """Yield the routes in their order of precedence, and behind them others of which there were messages."""
    named = routes.by_name
    for route in routes.routes:
        yield _counts(route.name, route.mqtt_filter, route.to.text, accounts[route.name])
    for name in list(accounts):  # while it is gone through, others may come
        if name not in named and (counts := _counts(name, "", "", accounts[name]))["received"]:
            yield counts


def _counts(name: str, mqtt_filter: str, to: str, account: Account) -> RouteCounts:
    return {
        "route": name,
        "filter": mqtt_filter,
        "to": to,
        "received": account.received + account.recovered,
        "delivered": account.delivered,
        "stored": account.stored,
        "dead_letters": sum(account.dead_lettered.values()),
        "dropped": sum(account.dropped.values()),
        "waiting": account.undelivered + account.in_flight,
    }
