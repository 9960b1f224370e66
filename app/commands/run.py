"""`connector run`: the worker. It is Faust's command `worker`, with those of its options that mean something here."""

from __future__ import annotations

from typing import Any, ClassVar

from faust.cli import option, params
from faust.cli.base import LOGLEVELS, compat_option
from faust.cli.worker import worker


def register() -> None:
    """Add the command to the app."""

    class run(worker):  # noqa: N801, Faust makes the command's name of it
        """Run the bridge until it is stopped, by Ctrl-C or SIGTERM.

        Everything is set by environment variables, or in .env of the working directory; the options beat them.

        \b
        Example:
          connector run

        It ends with 0 when it was stopped, 1 after an error that a new start may mend, 2 when settings are wrong, and 3
        when the data directory cannot be used.
        """  # noqa: D301, \b is Click's: lines that stay as they are

        options: ClassVar[list[Any]] = [
            option("--with-web/--without-web", default=True, help="whether the pages are served"),
            option("--web-port", "-p", default=None, type=params.TCPPort(), help="in place of WEB_PORT"),
            option("--web-bind", "-b", default=None, type=str, help="address to listen on, in place of WEB_HOST"),
            compat_option(
                "--loglevel",
                "-l",
                state_key="loglevel",
                default=None,
                type=params.CaseInsensitiveChoice(LOGLEVELS),
                help="in place of LOG_LVL",
            ),
        ]

        def _init_worker_options(self, *args: Any, **kwargs: Any) -> None:
            super()._init_worker_options(*args, web_host=None, web_transport=None, **kwargs)
