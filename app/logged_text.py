"""A stranger's text in a log line: not as long as it may be, as each character of a line costs time.

A publisher may choose a topic of the dearest 65,535 bytes for the guard (`app.secret_forms`), and have a message for
each route come with one read; a line about each of them would hold everything up for seconds.
"""

from __future__ import annotations

from app.secret_forms import known

LOGGED_CHARACTERS = 150
# Looked at beside them: enough for a secret of 40 characters, each of them escaped by 15.
LOGGED_MARGIN_CHARACTERS = 600


class LoggedText:
    """A text that is cut when a line is made of it, so not for the lines that are left out."""

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str) -> None:
        """Take the whole text."""
        self._text, self._shown = text, ""

    def __str__(self) -> str:
        """Return what `%s` writes."""
        if len(self._text) <= LOGGED_CHARACTERS:
            return self._text
        if not self._shown:
            beginning = known.hidden_beginning(self._text, LOGGED_CHARACTERS, LOGGED_MARGIN_CHARACTERS)
            self._shown = f"{beginning[:LOGGED_CHARACTERS]}..."
        return self._shown

    def __repr__(self) -> str:
        """Return what `%r` writes."""
        return repr(str(self))
