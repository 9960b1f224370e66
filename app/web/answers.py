"""The headers of every answer, and the answers that are not pages: refusals and failures."""

from __future__ import annotations

import json
from http import HTTPStatus

from aiohttp.web import HTTPException, Response

# The browser may load from here alone, no script or style within the markup, and no text ever becomes markup (Trusted
# Types). No name of a library, no version: it would say which weakness to try.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "connector",
}


def refusal(status: int, sentence: str) -> Response:
    """Return an answer that is no page: a sentence, as JSON."""
    return Response(status=status, text=json.dumps({"error": sentence}) + "\n", content_type="application/json")


def plain(error: HTTPException) -> Response:
    """Return what aiohttp answers by itself without what it repeats of the request."""
    answer = refusal(error.status, HTTPStatus(error.status).phrase)
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer
