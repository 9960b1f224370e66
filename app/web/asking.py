"""Which requests are allowed: under which host names, and from which other pages in a browser.

A web page of a stranger can have its own name lead to this host, and would then read these pages in the browser of
whoever looks at it (DNS rebinding). An address, and `localhost`, cannot be made to lead elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import HttpVersion11
from aiohttp.web import Request, Response

from app.web.answers import refusal
from app.web.refusals import Refusals

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(?::[0-9]{0,5})?", re.IGNORECASE)
UNKNOWN_HOST = (
    "These pages answer to IP addresses, to localhost and to WEB_HOST. If this name is theirs too, add it to "
    "WEB_ALLOWED_HOSTS."
)
NO_HOST = "The request does not say once, in one header Host, which host it means."
OTHER_SITE = "A page of another site asked for this: open these pages themselves."


def host_in(authority: str) -> str | None:
    """Return the host of `host:port`, in lower case and without a last dot; None if it is none."""
    match = _AUTHORITY.fullmatch(authority)
    return match[1].lower().removesuffix(".") or None if match else None


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address; of IPv6 in brackets."""
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
    except ValueError:
        return False
    return host.startswith("[") == (":" in host)


class Names:
    """The names under which the pages answer, beside addresses."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names; `*.` at the beginning stands for all names that end so."""
        known = {name.lower().removesuffix(".") for name in (*names, "localhost") if name}
        self._exact = {name for name in known if not name.startswith("*.")}
        self._endings = tuple(name[1:] for name in known if name.startswith("*."))

    def has(self, host: str) -> bool:
        """Tell whether the pages answer to a host."""
        return host in self._exact or is_address(host) or (bool(self._endings) and host.endswith(self._endings))


class Doorkeeper:
    """Refuses who may not ask."""

    def __init__(self, names: Names, refusals: Refusals) -> None:
        """Take the names, and where it is noted what is refused."""
        self._names = names
        self._refusals = refusals

    def refusal(self, request: Request) -> Response | None:
        """Return what is answered to who may not ask; None: the request is to be served."""
        hosts = self._hosts(request)
        client = request.remote or "somebody"
        if hosts is None or None in hosts:
            self._refusals.note("malformed", client, "it names no host, or several")
            return refusal(400, NO_HOST)
        for host in hosts:
            if not self._names.has(host or ""):
                self._refusals.note("host", client, host or "")
                return refusal(421, UNKNOWN_HOST)
        if not _is_from_here(request):
            self._refusals.note("other_site", client, request.method)
            return refusal(403, OTHER_SITE)
        return None

    @staticmethod
    def _hosts(request: Request) -> list[str | None] | None:
        """Return the hosts that a request names: in its header, and in its target if that is a URL.

        None in the list is one that is malformed; None instead of it: there is not one header, as there must be.
        """
        named = request.headers.getall("Host", [])
        if len(named) > 1 or (not named and request.version >= HttpVersion11):
            return None
        hosts = [host_in(authority.strip()) for authority in named]
        target = request.raw_path
        if not target.startswith("/") and target != "*":
            hosts.append(_host_of_url(target))
        return hosts


def _host_of_url(url: str) -> str | None:
    try:
        return host_in(urlsplit(url).netloc)
    except ValueError:
        return None


def _is_from_here(request: Request) -> bool:
    """Tell whether a request comes from these pages, from no page at all, or is somebody following a link here.

    Browsers say so in Sec-Fetch-Site, except to hosts that they reach neither by TLS nor on the loopback; then there is
    Origin, with what may change something, or is to be read by a script.
    """
    sites = request.headers.getall("Sec-Fetch-Site", [])
    if sites and set(sites) <= {"same-origin", "none"}:
        return True  # whatever the origin: a proxy in front of these pages may have given them another name
    if sites and not _is_link(request):
        return False
    return all(_is_own(origin, request) for origin in request.headers.getall("Origin", []))


def _is_link(request: Request) -> bool:
    """Tell whether somebody opens a page by a link: in a tab of its own, not in a frame within another page."""
    asked = [request.headers.getall(f"Sec-Fetch-{name}", []) for name in ("Mode", "Dest")]
    return request.method in {"GET", "HEAD"} and asked == [["navigate"], ["document"]]


def _is_own(origin: str, request: Request) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").strip().lower() != ""
    except ValueError:
        return False
