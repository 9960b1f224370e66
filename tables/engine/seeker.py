"""Looks for single entries here and there in the database, all as they are when it is made."""

from __future__ import annotations

from collections.abc import Callable

from rocksdict import RdictIter

from tables import layout


class Seeker:
    """A place in the database. It is there for a moment of work: it keeps files that RocksDB would delete."""

    def __init__(self, iterator: RdictIter, check_readable: Callable[[RdictIter], None]) -> None:
        """Take an iterator, and what raises an error if that is at its end because it cannot read on."""
        self._iterator = iterator
        self._check_readable = check_readable
        self._key = b""

    def first_from(self, key: bytes) -> bytes:
        """Return the first key that is not smaller than this one, without reading its value; empty: there is none.

        Raises:
            StoreError: It cannot be read.
        """
        if not self._key or key != self._key:
            if self._key and key == self._key + layout.JUST_BEHIND:
                self._iterator.next()  # a tenth of what a seek takes
            else:
                self._iterator.seek(key)
            if not self._iterator.valid():
                self._check_readable(self._iterator)
                self._key = b""
                return b""
            self._key = self._iterator.key()
        return self._key

    @property
    def value(self) -> bytes:
        """The value of the key that was returned last."""
        value: bytes = self._iterator.value()
        return value
