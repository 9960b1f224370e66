"""The commands: `faust -A app.main dead-letters list|retry|delete`.

`list` reads beside a running worker. The others write, so the worker must be stopped first: the table has one writer.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from faust.cli import argument, option

from app.application import app
from app.errors import ConnectorError
from tables import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.messages import Message
    from tables.undelivered import UndeliveredTable

SHOWN_BYTES = 60


class DeadLetterDesk:
    """Lists, retries and deletes dead letters of a table that it opens itself."""

    def __init__(self, table: UndeliveredTable) -> None:
        """Take the table, which is not open.

        Raises:
            ConnectorError: It is in memory.
        """
        if not table.is_durable:
            raise ConnectorError("DB_PERSIST_PATH is not set: dead letters are in the worker's memory only")
        self._table = table

    def answer(self, action: str, ids: tuple[str, ...], *, everything: bool) -> list[str]:
        """Do what the command line asks for, and return what to say.

        Raises:
            ConnectorError: It asks for nothing that there is.
        """
        if action == "list":
            lines = list(self.describe())
            return [*lines, f"{len(lines)} dead letters"]
        if action == "retry":
            return [f"{self.retry(ids)} dead letters will be sent when the worker starts"]
        if action == "delete" and (ids or everything):
            return [f"{self.delete(ids)} dead letters deleted"]
        raise ConnectorError("ACTION is list, retry or delete; delete wants ids or --all")

    def describe(self) -> Iterator[str]:
        """Yield a line per dead letter: id, reason, Kafka topic, MQTT topic, payload."""
        self._table.open(read_only=True)
        for key, reason, topic, message in self._table.dead_letters():
            mqtt_topic = dict(message.headers).get("mqtt-topic", b"").decode("utf-8", "backslashreplace")
            payload = repr(message.payload[:SHOWN_BYTES])[1:] + ("..." if len(message.payload) > SHOWN_BYTES else "")
            yield f"{key[1:].hex()}  {reason}  {topic}  {mqtt_topic!r}  {len(message.payload)} bytes  {payload}"

    def retry(self, ids: tuple[str, ...]) -> int:
        """Put dead letters at the end of their lanes, to be sent when the worker starts; return how many."""
        self._table.open()
        self._table.begin_epoch()
        count = 0
        for count, (key, topic, message) in enumerate(self._chosen(ids), 1):
            write = self._table.begin()
            write.remove_dead_letter(key, self._value_bytes(key))
            message.key = layout.undelivered_prefix(topic) + layout.pack_sequence(self._table.epoch, count)
            message.dead_reason = ""
            write.append([message])
            write.commit()
        return count

    def delete(self, ids: tuple[str, ...]) -> int:
        """Delete dead letters for good; return how many."""
        self._table.open()
        chosen = self._chosen(ids)
        write = self._table.begin()
        for key, _, _ in chosen:
            write.remove_dead_letter(key, self._value_bytes(key))
        write.commit()
        return len(chosen)

    def close(self) -> None:
        """Sync and close the table."""
        self._table.close()

    def _chosen(self, ids: tuple[str, ...]) -> list[tuple[bytes, str, Message]]:
        found = {key[1:].hex(): (key, topic, message) for key, _, topic, message in self._table.dead_letters()}
        unknown = [name for name in ids if name not in found]
        if unknown:
            raise ConnectorError(f"no dead letter has the id {', '.join(unknown)}; `dead-letters list` shows them")
        return [found[name] for name in dict.fromkeys(ids)] if ids else list(found.values())

    def _value_bytes(self, key: bytes) -> int:
        return len(self._table.data.database.get(key))


def register(table: UndeliveredTable) -> None:
    """Add the commands to the app."""

    @app.command(
        argument("action"),
        argument("ids", nargs=-1),
        option("--all", "everything", is_flag=True, help="delete: all of them"),
    )
    async def dead_letters(self: Any, action: str, ids: tuple[str, ...], everything: bool) -> None:
        """List, retry or delete the messages that Kafka would never take.

        ACTION is list, retry or delete. IDS are those that list shows; retry without ids takes all, delete without
        ids wants --all. The worker must be stopped, except for list.
        """
        desk = None
        try:
            desk = DeadLetterDesk(table)
            for line in desk.answer(action, ids, everything=everything):
                self.say(line)
        except ConnectorError as error:
            print(f"connector: {error}", file=sys.stderr)  # noqa: T201, a command speaks to its user
            raise SystemExit(error.exit_code) from error
        finally:
            if desk is not None:
                desk.close()
