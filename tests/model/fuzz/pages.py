"""The pages: bytes at the program's own web application, in this process, with WEB_TOKEN set.

An input is a byte of options and what clients send, each up to two bytes FF; the options say whether it comes in
pieces, and how many times the last client repeats its part. Each answer must be one of HTTP, with the headers that
tell a browser what it may do and without a word on the server; nothing fails inside, and no secret is logged. After
each input a sound request is answered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging.config
import os

from tests.model.fuzz import request_shapes
from tests.model.fuzz.heard import Heard
from tests.model.fuzz.http_answers import answers_in, check
from tests.model.fuzz.wire import Wire

LONGEST_BYTES = 2048
MOST_BYTES, MOST_REQUESTS = 40_000, 50
CLIENT, CLIENT_END = "127.0.0.1", b"\xff\xff"
SOUND = b"GET /page/icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Stage:
    """The program as it is wired, its table in memory, its pages ready to be asked."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        import app.main as program  # noqa: PLC0415, needs the loop and the environment
        from app.application import _logging_config, app  # noqa: PLC0415

        logging.config.dictConfig(_logging_config())
        self.heard = Heard(os.environ["WEB_TOKEN"])
        self.loop.set_exception_handler(self.heard.on_loop_error)
        app.finalize()
        program.undelivered.open_to_write()
        assert app.web.cors
        app.web.init_server()
        self._pages = app.web._pages
        self.loop.run_until_complete(self._pages._runner.setup())

    async def ask(self, *clients):
        """Have clients send their pieces, one in turn, and hang up; return what each was answered."""
        wires = [Wire(self._pages._connection(self._pages.connections, CLIENT)) for _ in clients]
        for pieces in itertools.zip_longest(*clients, fillvalue=b""):
            for wire, piece in zip(wires, pieces, strict=True):
                await wire.send(piece)
        return [await wire.end() for wire in wires]


def pieces_of(data):
    """Cut the data into about eight pieces."""
    size = len(data) // 8 + 1
    return [data[place : place + size] for place in range(0, len(data), size)]


def try_input(stage, data):
    """Have clients send one input; raise if anything but the expected came of it."""
    options, parts = (data[0], data[1:].split(CLIENT_END)[:5]) if data else (0, [b""])
    if options >= 0xC0:
        is_whole = b"\n\r\n" in parts[-1] or b"\n\n" in parts[-1]  # that many of them take long is no news
        most = MOST_REQUESTS if is_whole else 1 + MOST_BYTES // (len(parts[-1]) + 1)
        parts[-1] *= min(2 << (options >> 2 & 15), most)
    stage.heard.forget()
    clients = [pieces_of(part) if options & 1 else [part] for part in parts]
    for written in stage.loop.run_until_complete(stage.ask(*clients)):
        for answer in answers_in(written):
            check(answer)
    (written,) = stage.loop.run_until_complete(stage.ask([SOUND]))
    (answer,) = answers_in(written)
    assert answer.status == 200, answer
    stage.heard.assert_calm()


def changed(data, mutate, seed):
    """Return another input; `mutate` changes bytes anyhow."""
    return request_shapes.changed(data, mutate, seed, request_shapes.http, CLIENT_END)


def prepare():
    """Return what takes an input."""
    stage = Stage()
    return lambda data: try_input(stage, data)
