"""The MQTT thread: one connection after the other; whatever ended the last one, a new one is made.

    connect -> CONNACK -> turn, turn, turn ... -> the end, judged by `endings` -> a pause -> connect

A turn waits for the network or to be woken, reads unless memory is full, sends what waits, and lets the conversation
about subscriptions take its next step. In a stop, the thread first reads nothing more (`HALT`), while it still sends
acknowledgements; then it sends DISCONNECT and ends (`QUIT`).
"""

from __future__ import annotations

import enum
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from paho.mqtt.enums import MQTTProtocolVersion

from app.mqtt.client import BridgeClient
from app.mqtt.connection import ATTEMPT_SECONDS
from app.mqtt.conversation import Answer, Conversation
from app.mqtt.disconnecting import disconnect
from app.mqtt.endings import Endings
from app.mqtt.hand_over import READ, WAIT_SECONDS, WRITE
from app.mqtt.race import Attempt
from app.mqtt.undecodable import Undecodable
from app.mqtt.window import Window
from app.throttle import Throttle

if TYPE_CHECKING:
    from app.core.memory_budget import MemoryBudget
    from app.mqtt.connection import ConnectionSettings
    from app.mqtt.hand_over import HandOver
    from app.mqtt.session import Session

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (1.0, 30.0)  # first and longest pause between connections
COALESCE_SECONDS = 0.005  # with 2 ms it was faster at QoS 2, and cost more of the processor at QoS 1
COALESCE_ABOVE_RATE = 10_000  # messages a second
RATE_WINDOW_SECONDS = 0.01
SEARCH_PAUSE_SECONDS = 2.0  # while a forbidden filter is looked for; brokers ban clients that come too often


class StopError(Exception):
    """The worker stops, so no connection is made any more."""


class Order(enum.IntEnum):
    """What the event loop wants of the thread; only ever the next one."""

    RUN = 0
    HALT = 1  # read nothing more
    QUIT = 2  # DISCONNECT, and end


class Pace:
    """Pauses a little between turns at high rates, so that reads grow: at full rate that saves a fifth and more."""

    def __init__(self, budget: MemoryBudget) -> None:
        """Know no rate yet; the budget counts what is received."""
        self._budget = budget
        self._is_fast = False
        self._messages = 0  # that had come at the last look
        self._looked_at = 0.0

    def pause(self, now: float) -> None:
        """Pause if the rate of the last moments is high."""
        seconds = now - self._looked_at
        if seconds >= RATE_WINDOW_SECONDS:
            messages = self._budget.received_messages
            self._is_fast = messages - self._messages >= seconds * COALESCE_ABOVE_RATE
            self._messages, self._looked_at = messages, now
        if self._is_fast:
            time.sleep(COALESCE_SECONDS)


class MqttThread:
    """Connects and serves, until it is told to quit.

    Attributes:
        connected: The broker has accepted the connection.
        connections: How many the broker has accepted.
        connections_lost: How many of them ended otherwise than by a stop.
        has_halted: The thread reads nothing more, as it was told.
        moved_at: `time.monotonic()` when the thread last moved: it went round its loop, or waits for the network.
    """

    def __init__(
        self, connection: ConnectionSettings, session: Session, budget: MemoryBudget, hand_over: HandOver
    ) -> None:
        """Do nothing before `start`.

        Args:
            connection: How to connect.
            session: What outlives connections.
            budget: What may be held in memory alone.
            hand_over: What passes between the thread and the event loop.
        """
        self.connected = False
        self.connections = self.connections_lost = 0
        self.has_halted = False
        self.moved_at = time.monotonic()
        self._connection = connection
        self._session = session
        self._budget = budget
        self._hand_over = hand_over
        self._order = Order.RUN
        self._quits = threading.Event()  # set with the order to quit, as a pause waits for it
        self._attempt_seconds = ATTEMPT_SECONDS[0]
        self._undecodable = Undecodable()
        self._pace = Pace(budget)
        self._throttle = Throttle(log)
        self._endings = Endings(connection, session.subscriptions, self._throttle)
        self._window = Window(hand_over.wake)  # of the last connection
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # ---- the event loop's side

    @property
    def order(self) -> Order:
        """What the event loop wants of it."""
        return self._order

    @property
    def unacknowledged_messages(self) -> int:
        """How many messages of this connection are not acknowledged."""
        return len(self._window.pending)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def tell(self, order: Order) -> None:
        """Give an order (event loop)."""
        self._order = order
        if order is Order.QUIT:
            self._quits.set()
        self._hand_over.wake()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, so long at most; blocks."""
        self._thread.join(seconds)

    # ---- the thread's side

    @property
    def _is_to_quit(self) -> bool:
        return self._quits.is_set() or self._hand_over.is_over

    def _run(self) -> None:
        """Make one connection after the other until told to quit."""
        pause_seconds = BACK_OFF_SECONDS[0]
        while not self._is_to_quit:
            began = time.monotonic()
            again_at_once = False
            try:
                again_at_once = self._connect_and_serve()
            except StopError:
                self._rest(WAIT_SECONDS)
                continue
            except OSError as error:
                where = (self._connection.host, self._connection.port)
                self._throttle.warning(str(error), "cannot reach the MQTT broker at %s:%d: %s", *where, error)
            except Exception:  # whatever a packet did to paho, the next connection begins afresh
                if (counts := self._throttle.count("failed")) is not None:
                    log.exception("the MQTT connection failed", extra=counts)
            if self._session.subscriptions.forbidden.is_searching:
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
        if self._order is not Order.RUN or self._is_to_quit:
            self.has_halted = True
            raise StopError

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_to_quit and time.monotonic() < until:
            self.moved_at = time.monotonic()
            self.has_halted = self._order is not Order.RUN
            self._quits.wait(min(WAIT_SECONDS, seconds))

    def _connect_and_serve(self) -> bool:
        """Serve one connection until it ends; return whether to connect again without a pause."""
        window = self._window = Window(self._hand_over.wake)
        client = BridgeClient(
            self._connection.client_id,
            self._connection.protocol,
            self._session,
            window,
            self._hand_over.pass_batch,
            self._connection.largest_packet_bytes,
            self._undecodable,
        )
        began = time.monotonic()
        attempt = Attempt(self._attempt_seconds, self._beat)
        conversation = Conversation(
            client, self._session, self._hand_over.pass_request, self._throttle, attempt, self._connection.asked
        )
        try:
            self._connection.connect(client, attempt)
            self._serve(client, conversation)
        except TimeoutError:  # a slow network may need longer
            self._attempt_seconds = min(2 * self._attempt_seconds, ATTEMPT_SECONDS[1])
            raise
        finally:
            self._connection.note_end(accepted=conversation.is_accepted)
            self.connections_lost += self.connected and not self._is_to_quit
            self.connected = False
            window.close()
            self._hand_over.wait_for_none()
            client.close()
        if not self._is_to_quit and not conversation.is_refused and not client.ended_for_fault:
            self._endings.judge(conversation.end(time.monotonic() - began))
        if conversation.answer is Answer.REFUSED_VERSION and client.protocol == MQTTProtocolVersion.MQTTv5:
            self._connection.lower()
            self._throttle.warning("version", "the broker does not speak MQTT 5; going on with MQTT 3.1.1")
            return True
        return False

    def _serve(self, client: BridgeClient, conversation: Conversation) -> None:
        """Take one turn after the other, until the connection ends or the thread is to quit."""
        connection = client.socket()
        assert connection is not None
        while client.socket() is connection and not conversation.is_refused:
            halts = self._order is not Order.RUN  # looked at once: a thread that has halted must not read
            has_room = not client.is_clogged and not self._budget.check_full(client.reader.coming_bytes)
            # CONNACK is always read.
            reading = not halts and (not conversation.is_accepted or (conversation.may_read and has_room))
            self.has_halted = halts
            ready = self._hand_over.wait(connection, (READ if reading else 0) | (WRITE if client.want_write() else 0))
            self.moved_at = time.monotonic()
            client.turn(reading=reading, readable=bool(ready & READ), writable=bool(ready & WRITE))
            self._pace.pause(self.moved_at)
            self._note(is_accepted=conversation.is_accepted)
            conversation.go_on()
            if self._is_to_quit:
                disconnect(client)
                return

    def _note(self, *, is_accepted: bool) -> None:
        """Note whether the broker has accepted the connection, and count it."""
        self.connections += is_accepted and not self.connected
        self.connected = is_accepted
