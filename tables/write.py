"""One write to the table: entries, counts, heads and its number, in one atomic batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rocksdict import WriteBatch

from app.pieces import PIECE_BYTES
from tables import layout
from tables.entry import entry_bytes, pack_entry, pack_pieces
from tables.piece_keys import ENTRY_OVERHEAD_BYTES, after_pieces, piece_key, piece_keys, pieces_bytes
from tables.shapes import is_three_numbers

if TYPE_CHECKING:
    from app.core.message import Message
    from app.pieces import Pieces
    from tables.engine.store import Store
    from tables.figures import Counted, TableFigures
    from tables.repair.damage import Recount

# How many write numbers are kept: more than fit into the log, whose damage they are there to measure.
KEPT_WRITES = 100_000


class TableWrite:
    """One write: everything in it happens, or nothing."""

    def __init__(self, store: Store, figures: TableFigures) -> None:
        """Begin with nothing; the figures change with what is added, and are stored with it."""
        self._store = store
        self._figures = figures
        self._batch = WriteBatch(raw_mode=True)
        self._routes: set[str] = set()
        self._written = 0
        self._ended: set[bytes] = set()
        self._kept_pieces: set[bytes] = set()

    def append(self, messages: Sequence[Message]) -> Sequence[Counted]:
        """Store messages, a QoS 2 message's packet identifier with it; return what they are, by route."""
        batch = self._batch
        heads: dict[bytes, bytes] = {}
        number = self._figures.write_number
        for message in messages:
            message.kept_since = message.kept_since or number
            key, value = message.key, pack_entry(message)
            batch.put(key, value)
            message.stored = True
            message.stored_bytes = entry_bytes(key, value)
            if message.dead_letter_key:
                self.end_dead_letter(message)
            identifier = message.packet_identifier  # read once: the MQTT thread may end its flow meanwhile
            if message.qos == 2 and identifier:
                value = layout.pack((number, message.fingerprint))
                batch.put(layout.PACKET_IDENTIFIER + identifier.to_bytes(2, "big"), value)
            heads.setdefault(key[: -layout.SEQUENCE_BYTES], key)
        for message in [message for message in messages if len(message.payload) > PIECE_BYTES and message.is_in_pieces]:
            message.stored_bytes += pieces_bytes(message.pieces)
            self._keep_pieces(message.pieces)
        for prefix, key in heads.items():
            self._remember_head(prefix[1:-1], key)
        self._written += len(messages)
        return self._count(messages, 1)

    def _remember_head(self, topic: bytes, key: bytes) -> None:
        """Note a lane's first key when the table hears of the lane for the first time."""
        if topic not in self._figures.known_heads:
            self._figures.known_heads.add(topic)
            if self._store.value(layout.HEAD + topic) is None:
                self._batch.put(layout.HEAD + topic, key)

    def remove(self, messages: Sequence[Message], *, keep_pieces: bool = False) -> None:
        """Remove stored messages; their pieces stay if an entry of this write has them from now on."""
        delete = self._batch.delete
        for message in messages:
            delete(message.key)
        if not keep_pieces:
            for message in messages:
                if message.stored_bytes > PIECE_BYTES and message.is_in_pieces:
                    self._delete_pieces(message.pieces)
        self._count(messages, -1)

    # ---- pieces

    def put_piece(self, pieces: Pieces, number: int, data: bytes) -> None:
        """Store one piece; until an entry has them, it is noted that they were begun."""
        if not number:
            self._batch.put(layout.BEGUN + pieces.name, b"")
        self._batch.put(piece_key(pieces.name, number), data)

    def drop_begun(self, name: bytes) -> None:
        """Delete the pieces with a name, as many as there are, of which no entry knows."""
        self._batch.delete_range(piece_key(name, 0), after_pieces(name))
        self._batch.delete(layout.BEGUN + name)

    def keeps(self, pieces: Pieces) -> bool:
        """Tell whether an entry of this write has these pieces."""
        return pieces.name in self._kept_pieces

    def _keep_pieces(self, pieces: Pieces) -> None:
        self._batch.delete(layout.BEGUN + pieces.name)
        self._kept_pieces.add(pieces.name)

    def _delete_pieces(self, pieces: Pieces) -> None:
        for key in piece_keys(pieces):
            self._batch.delete(key)

    # ---- dead letters, and all else

    def move_head(self, topic: str, key: bytes) -> None:
        """Note that no entry of the lane has a smaller key."""
        self._batch.put(layout.HEAD + topic.encode(), key)

    def forget_head(self, topic: str) -> None:
        """Forget where a lane begins that has no entry."""
        self._figures.forget_lane(topic)
        self._batch.delete(layout.HEAD + topic.encode())

    def add_dead_letter(self, message: Message, topic: str) -> None:
        """Set a message aside, out of its lane; the oldest dead letters give way.

        Args:
            message: With its `dead_reason`; its key may be one that is stored.
            topic: The Kafka topic that would not take it.
        """
        if message.stored:
            self.remove([message], keep_pieces=True)
        message.kept_since = message.kept_since or self._figures.write_number
        key = layout.DEAD_LETTER + message.key[-layout.SEQUENCE_BYTES :]
        value = layout.pack((topic, pack_entry(message)))
        self._batch.put(key, value)
        self._figures.letters.note_size(len(value))
        size_bytes = entry_bytes(key, value)
        if message.is_in_pieces:
            self._keep_pieces(message.pieces)
            self._figures.letters.pieces[key] = message.pieces
            size_bytes += pieces_bytes(message.pieces)
            self._batch.put(layout.LETTER_PIECES + key[1:], pack_pieces(message.pieces))
        self._written += 1
        self._count_dead(1, size_bytes)

    def remove_dead_letter(self, key: bytes, value_bytes: int, *, keep_pieces: bool = False) -> None:
        """Delete a dead letter, of which the value has so many bytes; once, though it is read until the commit."""
        if key in self._ended:
            return
        self._ended.add(key)
        self._batch.delete(key)
        size_bytes = len(key) + value_bytes + ENTRY_OVERHEAD_BYTES
        pieces = self._figures.letters.pieces.pop(key, None)
        if pieces is not None:
            size_bytes += pieces_bytes(pieces)
            self._batch.delete(layout.LETTER_PIECES + key[1:])
            if not keep_pieces:
                self._delete_pieces(pieces)
        self._count_dead(-1, -size_bytes)

    def ends(self, key: bytes) -> bool:
        """Tell whether a dead letter is deleted by this write, though it is read until the commit."""
        return key in self._ended

    def remove_all_dead_letters(self, spared: Collection[bytes] = ()) -> None:
        """Delete all dead letters that there were before this write, but for those that have these keys.

        These are not touched: to write them again would hold everything else up.
        """
        letters, store = self._figures.letters, self._store
        values = ((key, store.value(key)) for key in spared)
        kept = [letters.pieces_bytes(key) + entry_bytes(key, value) for key, value in values if value]
        for first, end in store.ranges_without(spared, layout.DEAD_LETTER, layout.after_prefix(layout.DEAD_LETTER)):
            self._batch.delete_range(first, end)
        self._count_dead(len(kept) - letters.messages, sum(kept) - letters.size_bytes)
        for key in letters.pieces.keys() - set(spared):
            self._batch.delete(layout.LETTER_PIECES + key[1:])
            self._delete_pieces(letters.pieces.pop(key))

    def correct_dead_counts(self, messages: int, size_bytes: int) -> None:
        """Add to the counts of dead letters what they lack."""
        self._count_dead(messages, size_bytes)

    def clear_counts(self) -> None:
        """Set the counts of undelivered messages to nothing, as there are none."""
        self._routes.update(self._figures.messages)
        self._figures.clear()

    def end_dead_letter(self, message: Message) -> None:
        """Remove the dead letter that a retried message was, once; the message has its pieces now."""
        key, message.dead_letter_key = message.dead_letter_key, b""
        value = self._store.value(key)
        if value is not None:
            self.remove_dead_letter(key, len(value), keep_pieces=message.is_in_pieces)

    def forget_packet_identifiers(self, identifiers: Iterable[int]) -> None:
        """Forget stored QoS 2 identifiers."""
        for identifier in identifiers:
            self._batch.delete(layout.PACKET_IDENTIFIER + identifier.to_bytes(2, "big"))

    def set_meta(self, name: str, value: Any) -> None:
        """Set a single value."""
        self._batch.put(layout.META + name.encode(), layout.pack(value))

    def put_right(self, recount: Recount) -> None:
        """Store what was counted anew after damage, and forget the writes among which some are missing."""
        batch = self._batch
        for key in recount.dropped_keys:
            batch.delete(key)
        for name in recount.dropped_pieces:
            self.drop_begun(name)
        batch.delete_range(layout.LETTER_PIECES, layout.after_prefix(layout.LETTER_PIECES))
        for key, pieces in recount.letter_pieces.items():
            batch.put(layout.LETTER_PIECES + key[1:], pack_pieces(pieces))
        for topic, key in recount.heads.items():
            batch.put(layout.HEAD + topic.encode(), key)
        self._routes.update(self._figures.messages)
        self._set_dead_counts()
        batch.delete(layout.SALVAGED)
        self._forget_writes_before(self._figures.write_number, self._figures.written_messages)

    def commit(self) -> None:
        """Write; not synced.

        Raises:
            StoreError: Whether it is written is unknown.
        """
        figures = self._figures
        for route in self._routes:
            value = layout.pack((figures.messages[route], figures.bytes[route]))
            self._batch.put(layout.ACCOUNT + route.encode(), value)
        number = figures.write_number
        self._batch.put(
            layout.WRITE + number.to_bytes(8, "big"),
            layout.pack((figures.written_messages, self._written, figures.synced_before)),
        )
        if number % 1000 == 0 and number > KEPT_WRITES:
            oldest = number - KEPT_WRITES
            key = layout.WRITE + oldest.to_bytes(8, "big")
            kept = self._store.value(key)
            if kept is not None:
                self._forget_writes_before(oldest, layout.unpack(key, kept, is_three_numbers)[0])
        self._store.write(self._batch)
        figures.note_write(self._written)

    def _forget_writes_before(self, number: int, messages: int) -> None:
        """Begin the numbers of writes at one, before which so many messages were written."""
        self._batch.delete_range(layout.WRITE, layout.WRITE + number.to_bytes(8, "big"))
        self.set_meta("first_write", (number, messages))

    def _count(self, messages: Sequence[Message], sign: int) -> Sequence[Counted]:
        """Count messages into the table (1) or out of it (-1), per route."""
        counted = self._figures.count(messages, sign)
        self._routes.update([route for route, _, _ in counted])
        return counted

    def _count_dead(self, messages: int, size_bytes: int) -> None:
        """Count so many more dead letters."""
        self._figures.letters.count(messages, size_bytes)
        self._set_dead_counts()

    def _set_dead_counts(self) -> None:
        self.set_meta("dead", (self._figures.letters.messages, self._figures.letters.size_bytes))
