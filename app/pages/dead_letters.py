"""Dead letters for the page: the list, and what may be done about them with WEB_TOKEN.

Without WEB_TOKEN the page is read-only. Payloads are shown to those alone who send the token, as are changes made. The
token comes in the header `Authorization`, which no other site can have a browser send: there is no cookie.
"""

from __future__ import annotations

import hmac
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import ConnectorError
from app.lines import escaped, escaped_json, shown_topic
from app.metrics import accounts
from app.pages.reuse import Reused, Share
from app.strict_json import strict_json

if TYPE_CHECKING:
    from app.control import ControlServer
    from tables.dead_letter import DeadLetter
    from tables.undelivered import UndeliveredTable

SHOWN_MESSAGES = 50
# Of MQTT topics together, as the event loop waits for the list; the topic with which they are more is the last one.
SHOWN_CHARACTERS = 20_000
READ_BYTES = 16 * 1024 * 1024  # of the table, for one answer: a payload may be as large as Kafka's client takes

READ_ONLY = "These pages are read-only: set WEB_TOKEN to retry and delete dead letters here."
NOT_PERMITTED = "This needs the header `Authorization: Bearer` with the value of WEB_TOKEN."
NO_REQUEST = 'Send {"ids": [...]} with ids that the list shows, or {"all": true}.'


class Answer(NamedTuple):
    """What is answered to a request: the HTTP status, and JSON."""

    status: int
    text: str


def _answer(status: int, **content: Any) -> Answer:
    return Answer(status, escaped_json(content))


class DeadLetterPages:
    """Lists dead letters, and has them retried or deleted."""

    def __init__(self, table: UndeliveredTable, control: ControlServer, token: str | None, share: Share) -> None:
        """Take the table, what changes it, WEB_TOKEN, and what costly answers take together."""
        self._table = table
        self._control = control
        self._token = token
        # As the text that is sent, since that is made of long topics and payloads: without payloads, and with them.
        self._lists = [
            Reused(share, partial(self._list, with_payloads=with_payloads), lambda: self.version)
            for with_payloads in (False, True)
        ]

    @property
    def may_change(self) -> bool:
        """Whether there is a token that permits changes."""
        return self._token is not None

    @property
    def version(self) -> str:
        """Another text whenever the list may be another one."""
        added = sum(sum(account.dead_lettered.values()) for account in accounts.values())
        return f"{self._table.dead_messages}-{added}"

    def refusal(self, authorization: str | None) -> Answer | None:
        """Return why a request may change nothing; None if it may."""
        if self._token is None:
            return _answer(403, error=READ_ONLY)
        scheme, _, given = (authorization or "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token.encode())
        return None if right and scheme.lower() == "bearer" else _answer(401, error=NOT_PERMITTED)

    def listing(self, authorization: str | None) -> Answer:
        """List the oldest dead letters; with their payloads if the token came along, refused if it is wrong."""
        refusal = None if authorization is None else self.refusal(authorization)
        return refusal or self._lists[authorization is not None]()

    def _list(self, *, with_payloads: bool) -> Answer:
        try:
            shown = self._read(with_payloads=with_payloads)
        except ConnectorError as error:  # one that cannot be read
            return _answer(409, error=escaped(str(error)))
        return _answer(200, count=self._table.dead_messages, version=self.version, dead_letters=shown)

    def _read(self, *, with_payloads: bool) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        size_bytes = characters = 0
        for letter in self._table.dead_letters():
            listed.append({**_described(letter), "payload": letter.beginning if with_payloads else None})
            size_bytes += letter.value_bytes
            characters += len(listed[-1]["mqtt_topic"])
            if len(listed) >= SHOWN_MESSAGES or size_bytes >= READ_BYTES or characters >= SHOWN_CHARACTERS:
                break
        return listed

    async def change(self, action: str, authorization: str | None, body: bytes) -> Answer:
        """Retry or delete dead letters, as the body says which."""
        refusal = self.refusal(authorization)
        if refusal is not None:
            return refusal
        ids = _wanted(body)
        if ids is None:
            return _answer(400, error=NO_REQUEST)
        try:
            changed = await self._control.perform(action, ids)
        except ConnectorError as error:
            return _answer(409, error=escaped(str(error)))
        for listed in self._lists:
            listed.forget()
        return _answer(200, count=changed)


def _described(letter: DeadLetter) -> dict[str, Any]:
    message = letter.message
    return {
        "id": letter.id,
        "reason": message.dead_reason,
        "kafka_topic": letter.topic,
        "mqtt_topic": shown_topic(letter.mqtt_topic),
        "received_seconds": message.timestamp_ms / 1000,
        "size_bytes": len(message.payload),
    }


def _wanted(body: bytes) -> tuple[str, ...] | None:
    """Return the ids that a body names, none of them for all; None if it does not say."""
    try:
        request = strict_json(body)
    except ValueError:
        return None
    if not isinstance(request, dict) or len(request) != 1:
        return None
    if request.get("all") is True:
        return ()
    ids = request.get("ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) for name in ids):
        return None
    return tuple(ids)
