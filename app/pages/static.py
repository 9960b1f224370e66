"""The status page's own files, in the folder `page` beside this one: markup, style and script, nothing from elsewhere.

`app.web.answers` restricts what the browser may load (Content-Security-Policy), so that text from the network is never
run as a script.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

from app.application import app

# Name: media type. A name that is not here is not served.
FILES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "page.js": "text/javascript",
    "dom.js": "text/javascript",
    "format.js": "text/javascript",
    "charts.js": "text/javascript",
    "dead_letters.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def serve() -> None:
    """Serve the page at `/`, and what it loads under `/page/`."""
    folder = importlib.resources.files("app.pages") / "page"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES}

    def answer(view: Any, name: str) -> Any:
        return view.text(texts[name], content_type=FILES[name])

    @app.page("/", name="page")
    async def show_page(view: Any, _request: Any) -> Any:
        """Show whether all is well, to people."""
        return answer(view, "index.html")

    @app.page("/page/{name:" + "|".join(name.replace(".", r"\.") for name in FILES) + "}", name="page files")
    async def show_file(view: Any, _request: Any, name: str) -> Any:
        """Show what the page loads."""
        return answer(view, name)
