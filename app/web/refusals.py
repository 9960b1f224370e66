"""Refused requests and cut connections: counted, and logged once a minute, with the host name at most."""

from __future__ import annotations

import logging
from collections import Counter

from app.throttle import Throttle

log = logging.getLogger(__name__)

# By reason: what is logged. Strangers that scan ports are logged as information only.
INFORMATION = {
    "malformed": "%s sent the pages what is no request of HTTP (%s); it was refused",
    "too_slow": "%s took more than %s to send a request to the pages or to read the answer; its connection was cut",
}
WARNINGS = {
    "unread": "%s does not read what the pages answer, and %s wait for it; a connection of it was cut",
    "too_many": "%s has most of the %s connections to the pages, which are as many as may be; its oldest was cut",
    "no_files": "few files are left to open; a connection of %s to the pages was cut; %s",
    "host": "%s asked the pages for the host %s and was refused: if that is a name of theirs (a scrape by name, a "
    "proxy), add it to WEB_ALLOWED_HOSTS; else a page of a stranger tried to read them in a browser",
    "other_site": "%s asked the pages for something, sent by a page of another site (%s); it was refused",
    "failed": "a request of %s to the pages was not answered: %s; please report it",
}
REASONS = (*INFORMATION, *WARNINGS)


class Refusals:
    """How many there were, by reason.

    Attributes:
        counts: Since the start.
        throttle: What else is said of the pages.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.throttle = Throttle(log)

    def note(self, reason: str, client: str, detail: str) -> None:
        """Count one of `REASONS`, and say whose request or connection it was."""
        self.counts[reason] += 1
        if reason in INFORMATION:
            self.throttle.info(reason, INFORMATION[reason], client, detail)
        else:
            self.throttle.warning(reason, WARNINGS[reason], client, detail)
