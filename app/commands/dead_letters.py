"""`connector dead-letters list|retry|delete|move`: what cannot go to Kafka as it is.

It works beside a running worker and without one. `list` only reads. The others change the table, which has one writer:
a running worker is asked to do it (`app.control`); without one the command is the writer itself. `move` needs a worker,
as only a worker knows which lanes wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faust.cli import argument, option

from app.application import app
from app.commands.telling import Told, as_json_option, errors_are_told, no_worker
from app.control import ask_worker
from app.data_directory import DirectoryCheck
from app.errors import ConnectorError
from app.lines import escaped
from app.throttle import Progress
from tables import layout
from tables.dead_letter import mapped
from tables.dead_letters import Counts

if TYPE_CHECKING:
    from app.routes import RouteTable
    from app.storage.dead_letter_commands import MovedMessage
    from tables.dead_letter import DeadLetter
    from tables.undelivered import UndeliveredTable


# A waiting lane tries its first message now and then, and a missing topic keeps it with librdkafka for seconds.
MOVE_SECONDS = 15.0
MOVE_AGAIN_SECONDS = 0.1


class DeadLetterDesk:
    """Lists, retries and deletes dead letters."""

    def __init__(self, table: UndeliveredTable, directory: Path | None, routes: RouteTable) -> None:
        """Take the table, which is not open, its directory, and the routes.

        Raises:
            ConnectorError: It is in memory.
        """
        if directory is None:
            raise ConnectorError("DB_PERSIST_PATH is not set: dead letters are in the worker's memory only")
        self._table = table
        self._directory = directory
        self._routes = routes

    def answer(self, action: str, ids: tuple[str, ...], *, everything: bool) -> Iterable[Told]:
        """Do what the command line asks for, and return what to say; a list is read while it is said.

        Raises:
            ConnectorError: It asks for nothing that there is.
        """
        if everything and (ids or action in {"list", "move"}):
            raise ConnectorError("--all goes with delete and retry, and without ids")
        if action == "list" and not ids:
            return self._list()
        if action == "retry":
            return [self._retried(ids)]
        if action == "delete" and (ids or everything):
            count = ask_worker(self._directory, "delete", ids)
            count = self._delete(ids) if count is None else count
            return [Told(f"{count} dead letters deleted", {"deleted": count})]
        if action == "move" and len(ids) == 1:
            return [self._move(ids)]
        raise ConnectorError(
            "ACTION is list, retry, delete or move; list takes no ids, delete wants ids or --all, and move one Kafka "
            "topic, as `/status` names it"
        )

    def _retried(self, ids: tuple[str, ...]) -> Told:
        """Have dead letters sent once more."""
        count = ask_worker(self._directory, "retry", ids)
        if count is not None:
            return Told(f"{count} dead letters are sent once more", {"retried": count, "sent": "now"})
        count = self._retry(ids)
        text = f"{count} dead letters will be sent when the worker starts"
        return Told(text, {"retried": count, "sent": "at the next start"})

    def _move(self, names: tuple[str, ...]) -> Told:
        """Take the first message of a waiting lane out; it is asked for again while it is being tried."""
        give_up_at = time.monotonic() + MOVE_SECONDS
        while True:
            moved: MovedMessage | None = self._asked_to_move(names)
            if moved is not None:
                where = f"sent to {moved['goes_to']}" if moved["goes_to"] else f"kept here as {moved['id']}"
                text = (
                    f"moved out of the lane {names[0]}: a message of {moved['size_bytes']} bytes from "
                    f"{moved['mqtt_topic']!r}, {where}; the lane tries its next message"
                )
                return Told(text, {"moved": dict(moved)})
            if time.monotonic() >= give_up_at:
                raise ConnectorError(
                    f"nothing is moved: the first message of {names[0]} is with the Kafka client, and Kafka may take "
                    "it yet; try again when it was refused"
                )
            time.sleep(MOVE_AGAIN_SECONDS)

    def _asked_to_move(self, names: tuple[str, ...]) -> MovedMessage | None:
        answer = ask_worker(self._directory, "move", names)
        if answer is None:
            raise no_worker(self._directory, "lanes wait in a running worker only")
        return answer or None

    def _list(self) -> Iterator[Told]:
        """Yield each dead letter, and how many there are."""
        self._table.open(read_only=True)
        found = Counts(0, 0)
        for letter in self._table.dead_letters():
            yield _described(letter)
            found = Counts(found.messages + 1, found.size_bytes + letter.entry_bytes)
        self._compare(found)
        yield Told(f"{found.messages} dead letters", {"dead_letters": found.messages, "bytes": found.size_bytes})

    def _compare(self, found: Counts) -> None:
        """Say that the counts of dead letters are not what there is, and have them put right."""
        counted = self._table.letters.counted()
        if counted == found:
            return
        is_asked = ask_worker(self._directory, "recount") is not None
        when = "the worker counts them anew now" if is_asked else "the next start of the worker counts them anew"
        text = (
            f"the table counts {counted.messages} dead letters of {counted.size_bytes} bytes, and holds "
            f"{found.messages} of {found.size_bytes}: {when}"
        )
        print(escaped(text), file=sys.stderr, flush=True)  # noqa: T201, a command speaks to its user

    def _open_to_write(self) -> None:
        DirectoryCheck(self._directory).see_table()  # only a worker makes what is missing
        self._table.open_to_write()
        self._table.letters.count_now(Progress(_show_progress))

    def _retry(self, ids: tuple[str, ...]) -> int:
        """Put dead letters at the end of their lanes."""
        self._open_to_write()
        count = 0
        progress = Progress(_show_progress)
        letters = mapped(self._table.letters.chosen(ids), self._routes, all_of_them=bool(ids))
        for count, letter in enumerate(letters, 1):
            progress.reached(count)
            prefix = layout.undelivered_prefix(letter.topic)
            write = self._table.begin()
            write.append([letter.revived(prefix + layout.pack_sequence(self._table.epoch, count))])
            write.commit()
        return count

    def _delete(self, ids: tuple[str, ...]) -> int:
        self._open_to_write()
        return self._table.letters.delete(ids)

    def close(self) -> None:
        """Sync and close the table."""
        self._table.close()


def _described(letter: DeadLetter) -> Told:
    """Return id, reason, Kafka topic, MQTT topic, payload."""
    message = letter.message
    text = (
        f"{letter.id}  {message.dead_reason}  {letter.topic or '(no route)'}  {letter.mqtt_topic!r}  "
        f"{len(message.payload)} bytes  {letter.beginning}"
    )
    fields = {
        "id": letter.id,
        "reason": message.dead_reason,
        "kafka_topic": letter.topic or None,
        "mqtt_topic": letter.mqtt_topic,
        "payload_bytes": len(message.payload),
        "payload_beginning": letter.beginning,
    }
    return Told(text, fields)


def _show_progress(dead_letters: int) -> None:
    text = f"{dead_letters} dead letters so far ..."
    print(escaped(text), file=sys.stderr, flush=True)  # noqa: T201, a command speaks to its user


def register(table: UndeliveredTable, directory: Path | None, routes: RouteTable) -> None:
    """Add the command to the app."""

    @app.command(
        argument("action"),
        argument("ids", nargs=-1),
        option("--all", "everything", is_flag=True, help="delete: all of them"),
        as_json_option,
    )
    async def dead_letters(self: Any, action: str, ids: tuple[str, ...], everything: bool, as_json: bool) -> None:
        """List, retry or delete the messages that cannot go to Kafka as they are; or move one out of a lane that waits.

        ACTION is list, retry, delete or move. IDS are those that list shows; retry without ids takes all, delete
        without ids wants --all. move wants the Kafka topic of a lane that waits, and makes a dead letter of its first
        message, so that the lane goes on. A running worker is asked to do it.

        \b
        Examples:
          connector dead-letters list
          connector dead-letters retry
          connector dead-letters move plant
        """  # noqa: D301, \b is Click's: lines that stay as they are
        desk = None
        with errors_are_told():
            try:
                desk = DeadLetterDesk(table, directory, routes)
                for told in desk.answer(action, ids, everything=everything):
                    self.say(told.line(as_json=as_json or self.json))
            finally:
                if desk is not None:
                    desk.close()
