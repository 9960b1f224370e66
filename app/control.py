"""How a command reaches a running worker: a socket in the data directory, which only the worker's user can open.

While a worker runs, only its table writer changes the table. So a command that changes the table asks the worker to do
it. A drain is always done by the worker. Each request and each answer is one line of JSON:
`{"action": "retry", "ids": []}`, and `{"result": 3}` or `{"error": "..."}`. The status page is in the worker itself,
and calls `ControlServer.perform`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mode import Service

from app.application import app
from app.data_directory import SOCKET, DirectoryCheck, way_in
from app.errors import ConnectorError, DataDirectoryError, StoreError
from app.lines import escaped
from app.own_files import is_trusted
from app.strict_json import strict_json
from app.throttle import Throttle
from app.turns import listed

ANSWER_SECONDS = 30.0
STOP_SECONDS = 1.0  # for what a command has begun, when the worker stops
LONGEST_REQUEST_BYTES = 16 * 1024 * 1024
UNEXPECTED = "the worker could not do it, as something unexpected happened"
_CREDENTIALS = struct.Struct("3i")  # process, user, group

log = logging.getLogger(__name__)

Action = Callable[[tuple[str, ...]], Any]  # what it returns is awaited, if it takes its time


class ControlServer(Service):
    """Answers commands while the worker runs."""

    mundane_level = "debug"

    def __init__(self, directory: Path | None, actions: Mapping[str, Action], **kwargs: Any) -> None:
        """Make the service.

        Args:
            directory: DB_PERSIST_PATH; None: nothing to serve.
            actions: What can be asked for; each takes ids and returns what JSON can say, such as how many it changed.
            **kwargs: For `mode.Service`.
        """
        self._directory = directory
        self._actions = actions
        self._server: asyncio.Server | None = None
        self._throttle = Throttle(log)
        self._serving: dict[asyncio.Task[None], bool] = {}  # whether it does what it was asked for, and waits no more
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Listen; the directory is this worker's alone by now, and what a former one left there is removed.

        Raises:
            DataDirectoryError: Nothing can be made in it, or its file system has no sockets.
        """
        if self._directory is None:
            return
        listener = socket.socket(socket.AF_UNIX)
        previous_mask = os.umask(0o177)
        try:
            (self._directory / SOCKET).unlink(missing_ok=True)
            with _short_path(self._directory) as path:
                listener.bind(path)
        except OSError as error:
            listener.close()
            advice = f": {way_in(self._directory)}" if isinstance(error, PermissionError) else ""
            raise DataDirectoryError(
                f"DB_PERSIST_PATH {self._directory} cannot be used: {error.strerror}; the worker must be able to make "
                f"the socket {SOCKET} in it{advice}"
            ) from error
        finally:
            os.umask(previous_mask)
        self._server = await asyncio.start_unix_server(self._begin, sock=listener, limit=LONGEST_REQUEST_BYTES)

    async def on_stop(self) -> None:
        """Stop listening; what is being done has a moment to end, who has not yet asked for anything is left."""
        if self._server is not None and self._directory is not None:
            self._server.close()
            (self._directory / SOCKET).unlink(missing_ok=True)
        acting = [task for task, is_acting in self._serving.items() if is_acting]
        if acting:
            await asyncio.wait(acting, timeout=STOP_SECONDS)
        left = list(self._serving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client in a task of ours: asyncio would log one of its own as an error when the worker stops."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving[task] = False
        task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not is_trusted(_user_of(writer.get_extra_info("socket"))):
                return
            line = await asyncio.wait_for(reader.readline(), ANSWER_SECONDS)
            if not line:  # it asks for nothing: `worker_process` wants to know who is here
                return
            if task := asyncio.current_task():
                self._serving[task] = True
            writer.write(await self._answered(line))
            await writer.drain()
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # it went away, or sends too much
            reason = str(error) or f"it did not come within {ANSWER_SECONDS:.0f} s"
            self._throttle.warning(type(error).__name__, "a command was not answered: %s", reason)
        finally:
            writer.close()

    async def perform(self, action: str, ids: tuple[str, ...]) -> Any:
        """Do what a command or the page asks for; return what the action returns.

        Raises:
            KeyError: There is no such action.
            ConnectorError: It could not be done.
        """
        try:
            result = self._actions[action](ids)
            if inspect.isawaitable(result):
                result = await result
        except StoreError as error:
            await app.fail(error)  # what the disk holds is unknown now
            raise
        return result

    async def _answered(self, line: bytes) -> bytes:
        """Return the answer as it is sent; there is one whatever happens, as somebody waits for it."""
        try:
            return await _encoded(await self._answer(line))
        except Exception as error:  # of this command alone, the worker goes on
            log.exception("a command could not be done, as something unexpected happened")
            return await _encoded({"error": f"{UNEXPECTED} ({type(error).__name__}); its log says more"})

    async def _answer(self, line: bytes) -> dict[str, Any]:
        request = _request(line)
        if request is None or request[0] not in self._actions:
            return {"error": f"not a request: wanted is one of {', '.join(self._actions)}, and a list of ids"}
        try:
            return {"result": await self.perform(*request)}
        except ConnectorError as error:
            return {"error": escaped(str(error))}  # the command may know other secrets, or none


async def _encoded(answer: dict[str, Any]) -> bytes:
    """Return an answer as a line of JSON; a list, such as that of ten thousand routes, is made in parts."""
    result = answer.get("result")
    if not isinstance(result, list):
        return json.dumps(answer).encode() + b"\n"
    members = ", ".join(await listed(map(json.dumps, result)))
    return f'{{"result": [{members}]}}\n'.encode()


def _request(line: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Return the action and the ids that a line asks for; None if it is not what a command sends."""
    try:
        request = strict_json(line)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.keys() != {"action", "ids"}:
        return None
    action, ids = request["action"], request["ids"]
    is_sound = isinstance(action, str) and isinstance(ids, list) and all(isinstance(each, str) for each in ids)
    return (action, tuple(ids)) if is_sound else None


def _answer_in(line: bytes) -> dict[str, Any]:
    """Return what a worker answered; nothing if it ended meanwhile, or within the line."""
    with contextlib.suppress(ValueError):
        answer = strict_json(line)
        if isinstance(answer, dict):
            return answer
    return {}


class _Peer(NamedTuple):
    """Who is at the other end of a connection, as the kernel says."""

    process: int
    user: int
    group: int


def _peer_of(connection: socket.socket) -> _Peer:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _Peer(*_CREDENTIALS.unpack(found))


def _user_of(connection: socket.socket) -> int:
    return _peer_of(connection).user


def ask_worker(directory: Path, action: str, ids: tuple[str, ...] = ()) -> Any | None:
    """Ask the worker that uses a data directory to do something.

    Returns:
        What the action returned; None if no worker runs.

    Raises:
        ConnectorError: The worker could not do it.
        DataDirectoryError: The directory, the socket or the worker is another user's.
    """
    with contextlib.ExitStack() as stack:
        connection = _connected(directory, stack)
        if connection is None:
            return None
        try:
            connection.sendall(json.dumps({"action": action, "ids": ids}).encode() + b"\n")
            answer = _answer_in(stack.enter_context(connection.makefile("rb")).readline())
        except OSError as error:
            raise ConnectorError(f"the worker does not answer: {error}") from error
    if "result" not in answer:
        raise ConnectorError(answer.get("error", "the worker ended before it answered"))
    return answer["result"]


def worker_process(directory: Path) -> int | None:
    """Return the number of the process of the worker that uses a data directory; None if there is none.

    Raises:
        DataDirectoryError: The directory, the socket or the worker is another user's.
    """
    with contextlib.ExitStack() as stack:
        connection = _connected(directory, stack)
        return None if connection is None else _peer_of(connection).process


def _connected(directory: Path, stack: contextlib.ExitStack) -> socket.socket | None:
    """Connect to the worker of a data directory; None if there is none."""
    with contextlib.suppress(PermissionError):  # which `DirectoryCheck` tells
        if not directory.exists():
            return None
    if not DirectoryCheck(directory).has_socket():
        return None
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.connect(stack.enter_context(_short_path(directory)))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise DataDirectoryError(
            f"DB_PERSIST_PATH {directory} cannot be used: {error.strerror}; {way_in(directory)}"
        ) from error
    if not is_trusted(user := _user_of(connection)):
        raise DataDirectoryError(f"DB_PERSIST_PATH {directory}: the worker there is of another user ({user})")
    return connection


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """Name the socket by way of the open directory, as its own path may be longer than the 107 bytes of a socket's."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
