"""The socket for commands: the worker's own server in this process, with actions that only note what they are asked.

An input is a byte of options and what clients send, each up to a byte FF, which no request has; the options say how
many times the last client repeats its part, whether it is cut into pieces, and whether clients hang up at once. A
client that waits gets one line, and it is the result only if the reference finds a request in what was sent. After each
input a sound request is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path

from app.control import ControlServer
from app.errors import ConnectorError
from tests.model.fuzz import request_shapes
from tests.model.fuzz.heard import Heard

LONGEST_BYTES = 2048
MOST_BYTES = 200_000
ACTIONS = ("retry", "delete", "move", "drain")
UNKNOWN = "unknown"  # an id that no dead letter has
ANSWER_SECONDS = 10.0
LINE_END, CLIENT_END = b"\n", b"\xff"
SOUND = b'{"action": "drain", "ids": []}\n'


class Pairs(list):
    """An object of JSON: a name that comes twice counts twice."""


class Stage:
    """The server, and what it was asked to do."""

    def __init__(self, directory):
        self.done = []
        self.heard = Heard()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self.heard.on_loop_error)
        actions = {name: self._action(name) for name in ACTIONS}
        self._server = ControlServer(Path(directory), actions, loop=self.loop)
        self.loop.run_until_complete(self._server.on_start())
        (self.path,) = Path(directory).iterdir()

    def _action(self, name):
        def act(ids):
            if UNKNOWN in ids:
                raise ConnectorError("no dead letter has the id unknown")
            self.done.append((name, ids))
            return len(ids)

        return act

    async def ask(self, pieces, *, hangs_up):
        """Send the pieces as one client; return the answer, None if the client did not wait for it."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if hangs_up:
                    return None
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def ask_all(self, parts, *, in_pieces, hangs_up):
        """Send each part as a client of its own, all at the same time."""
        asked = [self.ask(pieces_of(part) if in_pieces else [part], hangs_up=hangs_up) for part in parts]
        return await asyncio.gather(*asked)


def pieces_of(data):
    """Cut the data into about eight pieces."""
    size = len(data) // 8 + 1
    return [data[place : place + size] for place in range(0, len(data), size)]


def request_in(data):
    """Return action and ids of a request, None if it is none."""
    try:
        pairs = json.loads(data.partition(b"\n")[0].decode(), object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, Pairs) or sorted(name for name, _ in pairs) != ["action", "ids"]:
        return None
    request = dict(pairs)
    action, ids = request["action"], request["ids"]
    if action not in list(ACTIONS) or type(ids) is not list or not all(isinstance(name, str) for name in ids):
        return None
    whole = not any("\ud800" <= letter <= "\udfff" for name in ids for letter in name)  # no half of a character
    return (action, tuple(ids)) if whole else None


def try_input(stage, data):
    """Have clients send one input; raise if anything but the expected came of it."""
    options, parts = (data[0], data[1:].split(CLIENT_END)[:20]) if data else (0, [b""])
    if options >= 0xC0:
        parts[-1] *= min(2 << (options >> 2 & 15), 1 + MOST_BYTES // (len(parts[-1]) + 1))
    stage.done.clear()
    stage.heard.forget()
    hangs_up = bool(options & 2)
    answers = stage.loop.run_until_complete(stage.ask_all(parts, in_pieces=options & 1, hangs_up=hangs_up))
    requests = [request_in(part) for part in parts]
    for part, request, answer in zip(parts, requests, answers, strict=True):
        sends_on = bool(part.partition(b"\n")[2])  # what is behind the line is not read, which may cost the answer
        if not part:  # who asks for nothing wants to know who is there
            assert not answer, answer
        elif answer is not None and (answer or not sends_on):
            check(request, answer)
    allowed = [request for request in requests if request and UNKNOWN not in request[1]]
    if hangs_up:
        assert all(request in allowed for request in stage.done), (stage.done, allowed)
    else:
        assert sorted(stage.done) == sorted(allowed)
    assert json.loads(stage.loop.run_until_complete(stage.ask([SOUND], hangs_up=False))) == {"result": 0}
    stage.heard.assert_calm()


def check(request, answer):
    """See that one client's answer is right."""
    said = json.loads(answer)
    assert answer.count(b"\n") == 1 and answer.endswith(b"\n")
    if request and UNKNOWN not in request[1]:
        assert said == {"result": len(request[1])}, (request, said)
    else:
        assert list(said) == ["error"] and len(answer) < 10_000, (request, said)


def changed(data, mutate, seed):
    """Return another input; `mutate` changes bytes anyhow."""
    return request_shapes.changed(
        data, mutate, seed, lambda choose: request_shapes.request(choose) + LINE_END, CLIENT_END
    )


def prepare():
    """Return what takes an input."""
    directory = tempfile.mkdtemp(prefix="fuzz-control-")
    stage = Stage(directory)
    return lambda data: try_input(stage, data)
