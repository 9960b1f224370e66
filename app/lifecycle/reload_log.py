"""What the log says of routes: which are in vain, and what a reload has changed."""

from __future__ import annotations

import logging

from app.routes import Differences, Route, shadowed

log = logging.getLogger(__name__)

LOGGED_SHADOWED = 10  # routes
LOGGED_NAMES = 20


def log_shadowed(routes: tuple[Route, ...]) -> list[str]:
    """Warn of routes that never get a message; return a sentence for each."""
    found = [each.text for each in shadowed(routes)]
    for text in found[:LOGGED_SHADOWED]:
        log.warning("%s", text)
    if len(found) > LOGGED_SHADOWED:
        log.warning(
            "and %d routes more never get a message: `connector routes` lists them", len(found) - LOGGED_SHADOWED
        )
    return found


def log_differences(found: Differences) -> None:
    """Say what has changed, with the first names."""
    parts = [
        f"{len(names)} {what} ({', '.join(names[:LOGGED_NAMES])}{', ...' if len(names) > LOGGED_NAMES else ''})"
        for what, names in (("added", found.added), ("removed", found.removed), ("changed", found.changed))
        if names
    ]
    log.info("the routes were read anew: %s", ", ".join(parts) or "they are in another order")
