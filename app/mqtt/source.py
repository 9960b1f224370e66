"""The MQTT source: a service with one thread, which receives messages and acknowledges them, and the stop sequence.

The thread connects, reads and writes (`app.mqtt.client`), and makes every connection anew, whatever ended the last one
(what its end hints at: `app.mqtt.endings`). What it receives goes to the event loop through a deque, and from there
into the channel `inbound`, one `Batch` at a time. It stops reading the socket while more is held in memory alone than
`Flow` allows.

Stopping is this service's, as it is the first that stops, while all others still run: read nothing more; let what is
in flight settle; store the rest; send the acknowledgements; DISCONNECT, which keeps the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mode import Service
from paho.mqtt.enums import MQTTProtocolVersion

from app import channels
from app.messages import Batch, Flow, Released, Remembered, Subscribed
from app.mqtt.acknowledgements import Window
from app.mqtt.client import BridgeClient
from app.mqtt.connection import ATTEMPT_SECONDS, ConnectionSettings
from app.mqtt.disconnecting import disconnect
from app.mqtt.endings import Endings
from app.mqtt.leaving import Leaving
from app.mqtt.race import Attempt
from app.mqtt.subscriber import Subscriber
from app.mqtt.undecodable import Undecodable
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.mqtt.session import Session

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (1.0, 30.0)  # first and longest pause between connections
COALESCE_SECONDS = 0.005  # with 2 ms it was faster at QoS 2, and took more of the processor at QoS 1
COALESCE_ABOVE_RATE = 10_000  # messages a second
RATE_WINDOW_SECONDS = 0.01
SELECT_SECONDS = 1.0  # how long the thread sleeps at most, so that its heart beats and pings go out
JOIN_SECONDS = 1.0
SEARCH_PAUSE_SECONDS = 2.0  # while a forbidden filter is looked for; brokers ban clients that come too often


class StopError(Exception):
    """The worker stops, so no connection is made any more."""


class MqttSource(Service):
    """Receives from the broker until it is stopped.

    Attributes:
        connected: The broker has accepted the connection.
        connections: How many the broker has accepted.
        stopping: The stop sequence has begun.
        moved_at: `time.monotonic()` when the thread last moved: it went round its loop, or waits for the network.
    """

    mundane_level = "debug"

    def __init__(
        self,
        connection: ConnectionSettings,
        session: Session,
        flow: Flow,
        settle: Callable[[], Awaitable[None]],
        **kwargs: object,
    ) -> None:
        """Make the service; nothing is connected before it starts.

        Args:
            connection: How to connect.
            session: What outlives connections.
            flow: What is held in memory alone.
            settle: Waits until everything that was received is with Kafka or on disk, within the stop budget.
            **kwargs: For `mode.Service`.
        """
        self.connection = connection
        self.session = session
        self.flow = flow
        self.connected = False
        self.connections = 0
        self.stopping = False
        self.moved_at = time.monotonic()
        self._settle = settle
        self._received: deque[Batch | Released | Remembered | Subscribed] = deque()
        self._halted = False
        self._undecodable = Undecodable()
        self._attempt_seconds = ATTEMPT_SECONDS[0]
        self._throttle = Throttle(log)
        self._endings = Endings(connection, session, self._throttle)
        self._quit = threading.Event()
        super().__init__(**kwargs)

    # ---- the event loop's side

    async def on_start(self) -> None:
        """Start the thread and the task that empties its deque."""
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._wake_sent = False
        self._event_loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._rate_messages = 0
        self._rate_since = 0.0
        self._is_fast = False
        self.flow.wake = self.wake
        self.add_future(self._pass_on())
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    async def _pass_on(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._received:
                item = self._received.popleft()
                if isinstance(item, Batch):
                    if item.messages:
                        await channels.inbound.put(item)
                    item.window.release()  # a QoS 2 message that came again may be safe already
                else:
                    await channels.undelivered.put(item)

    async def on_stop(self) -> None:
        """Run the whole stop sequence; see the module's header."""
        if not hasattr(self, "_thread"):
            return  # another service failed to start before this one
        self.stopping = True
        self.wake()
        give_up_at = time.monotonic() + JOIN_SECONDS
        while not self._halted and time.monotonic() < give_up_at:
            await asyncio.sleep(0.002)
        await self._settle()
        self._quit.set()
        self.wake()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, JOIN_SECONDS)

    # ---- the thread's side

    def wake(self) -> None:
        """Wake the thread from its sleep (any thread)."""
        if not self._wake_sent:
            self._wake_sent = True
            with contextlib.suppress(BlockingIOError):  # it is awake already
                self._waker.send(b"\0")

    def _hand_over(self, batch: Batch, released: list[int]) -> None:
        self._rate_messages += len(batch.messages)
        self.flow.received_messages += len(batch.messages)
        self.flow.received_bytes += batch.size_bytes
        self._pass(batch)
        if released:
            self._pass(Released(released, batch.window))

    def _pass(self, item: Batch | Released | Remembered | Subscribed) -> None:
        self._received.append(item)
        try:
            self._event_loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the event loop is closed: the process ends
            self._quit.set()

    def _run(self) -> None:
        """Make one connection after the other until told to quit."""
        pause_seconds = BACK_OFF_SECONDS[0]
        while not self._quit.is_set():
            began = time.monotonic()
            again_at_once = False
            try:
                again_at_once = self._connect_and_serve()
            except StopError:
                self._rest(SELECT_SECONDS)
                continue
            except OSError as error:
                where = (self.connection.host, self.connection.port)
                self._throttle.warning(str(error), "cannot reach the MQTT broker at %s:%d: %s", *where, error)
            except Exception:  # whatever a packet did to paho, the next connection begins afresh
                if (counts := self._throttle.count("failed")) is not None:
                    log.exception("the MQTT connection failed", extra=counts)
            if self.session.forbidden.is_searching:
                pause_seconds = SEARCH_PAUSE_SECONDS
            elif time.monotonic() - began > BACK_OFF_SECONDS[1]:
                pause_seconds = BACK_OFF_SECONDS[0]
            if not again_at_once:
                jitter = random.uniform(0.5, 1.0)  # jitter needs no cryptography  # noqa: S311  # nosec B311
                self._rest(pause_seconds * jitter)
                pause_seconds = min(pause_seconds * 2, BACK_OFF_SECONDS[1])

    def _beat(self) -> None:
        """Show that the thread moves while it waits for the network, and stop waiting when the worker stops."""
        self.moved_at = time.monotonic()
        if self.stopping or self._quit.is_set():
            self._halted = True
            raise StopError

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._quit.is_set() and time.monotonic() < until:
            self.moved_at = time.monotonic()
            self._halted = self.stopping
            self._quit.wait(min(SELECT_SECONDS, seconds))

    def _connect_and_serve(self) -> bool:
        """Serve one connection until it ends; return whether to connect again without a pause."""
        window = Window(self.wake)
        client = BridgeClient(
            self.connection.client_id,
            self.connection.protocol,
            self.session,
            window,
            self._hand_over,
            self.connection.largest_packet_bytes,
        )
        began = time.monotonic()
        attempt = Attempt(self._attempt_seconds, self._beat)
        subscriber = Subscriber(client, self.session, self._pass, self._throttle, attempt, self.connection.asked)
        client.undecodable = self._undecodable
        client.on_disconnect = subscriber.on_disconnect
        try:
            self.connection.connect(client, attempt)
            self._serve(client, subscriber, Leaving(client, self.session, self._pass, log))
        except TimeoutError:  # a slow network may need longer
            self._attempt_seconds = min(2 * self._attempt_seconds, ATTEMPT_SECONDS[1])
            raise
        finally:
            if subscriber.accepted:
                self.connection.opening.was_accepted()
            else:
                self.connection.raise_again()
            self.connected = False
            window.close()
            client.close()
        if not self._quit.is_set() and not subscriber.refused and not client.was_wronged:
            self._endings.judge(subscriber, time.monotonic() - began)
        if subscriber.refused_version and client.protocol == MQTTProtocolVersion.MQTTv5:
            self.connection.lower()
            self._throttle.warning("version", "the broker does not speak MQTT 5; going on with MQTT 3.1.1")
            return True
        return False

    def _serve(self, client: BridgeClient, subscriber: Subscriber, leaving: Leaving) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakened, selectors.EVENT_READ)
            connection = client.socket()
            assert connection is not None
            selector.register(connection, selectors.EVENT_READ)
            interest = selectors.EVENT_READ
            while client.socket() is connection and not subscriber.refused:
                stopping = self.stopping  # read once: what is said to have halted must not read
                may_receive = subscriber.may_read and not (
                    client.is_clogged or self.flow.check_full(client.coming_bytes)
                )
                client.reading = not stopping and (may_receive or not subscriber.accepted)  # CONNACK is always read
                self._halted = stopping
                wanted = (selectors.EVENT_READ if client.reading else 0) | (
                    selectors.EVENT_WRITE if client.want_write() else 0
                )
                if wanted != interest:
                    self._watch(selector, connection, interest, wanted)
                    interest = wanted
                self._turn(client, selector.select(SELECT_SECONDS), connection)
                self._note(subscriber)
                subscriber.give_up_on_connack()
                subscriber.look_at_the_clock()
                if self.session.leaving and self.connected:
                    leaving.go_on()
                if self._quit.is_set():
                    disconnect(client)
                    return

    def _note(self, subscriber: Subscriber) -> None:
        """Note whether the broker has accepted the connection, and count it."""
        self.connections += subscriber.accepted and not self.connected
        self.connected = subscriber.accepted

    @staticmethod
    def _watch(selector: selectors.BaseSelector, connection: object, interest: int, wanted: int) -> None:
        if not interest:
            selector.register(connection, wanted)  # type: ignore[arg-type]  # paho's socket-like object
        elif not wanted:
            selector.unregister(connection)  # type: ignore[arg-type]
        else:
            selector.modify(connection, wanted)  # type: ignore[arg-type]

    def _turn(self, client: BridgeClient, ready: list[tuple[selectors.SelectorKey, int]], connection: object) -> None:
        """Do what the socket is ready for; at high rates, pause a little so that reads grow."""
        self.moved_at = time.monotonic()
        for key, events in ready:
            if key.fileobj is self._wakened:
                self._drain_wakes()
                self._wake_sent = False  # after the drain: a wake in between would be eaten, and none sent again
            elif client.socket() is connection:
                if events & selectors.EVENT_READ:
                    client.loop_read()
                if events & selectors.EVENT_WRITE and client.socket() is connection:
                    client.loop_write()
        if client.socket() is connection:
            if client.want_write():
                client.loop_write()
            client.loop_misc()
        self._measure_rate()
        if self._is_fast:
            time.sleep(COALESCE_SECONDS)

    def _measure_rate(self) -> None:
        """Note whether reads are worth coalescing: at full rate that saves a fifth, and more where workers share it."""
        seconds = self.moved_at - self._rate_since
        if seconds >= RATE_WINDOW_SECONDS:
            self._is_fast = self._rate_messages >= seconds * COALESCE_ABOVE_RATE
            self._rate_messages = 0
            self._rate_since = self.moved_at

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakened.recv(4096)
