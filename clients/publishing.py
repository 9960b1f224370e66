"""Publishing numbered messages to an MQTT broker; knows nothing of command lines."""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from app.characters import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

# The client goes through all unacknowledged messages at each acknowledgement: more of them is slower.
_OUTSTANDING_MESSAGES = 100
# Mosquitto closes the connection of a client that has more than twenty QoS 2 messages in flight.
_OUTSTANDING_MESSAGES_QOS_2 = 20
_CONNECT_LIMIT_SECONDS = 10.0
_DRAIN_LIMIT_SECONDS = 10.0
_STEP_SECONDS = 0.1


class PublisherError(Exception):
    """The broker cannot be reached or does not want this client."""


@dataclass(frozen=True)
class Options:
    """What to publish, where and how fast; the defaults are those of the command line."""

    host: str
    port: int
    topics: Sequence[str]
    interval_seconds: float = 1.0
    total_messages: int = 0
    payload_bytes: int = 0
    qos: int = 1
    user_name: str = ""
    password: str = ""
    client_id: str = ""


class Publisher:
    """One connection to the broker; everything happens in the thread that calls.

    The client's own network thread is not used: sharing the interpreter with it costs more than half of the rate.

    Attributes:
        published: messages handed to the client, for each topic.
        run_name: tells the numbers of this start from those of another.
        acknowledged_messages: those that the broker confirmed; at QoS 0, those that were written.
    """

    def __init__(self, options: Options) -> None:
        self.published = dict.fromkeys(options.topics, 0)
        self.acknowledged_messages = 0
        self._options = options
        self.run_name = secrets.token_hex(4)
        self._stop = threading.Event()
        self._refusal: str | None = None
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=options.client_id)
        self._window_messages = _OUTSTANDING_MESSAGES_QOS_2 if options.qos == 2 else _OUTSTANDING_MESSAGES
        self._client.max_inflight_messages_set(self._window_messages)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        if options.user_name:
            self._client.username_pw_set(options.user_name, options.password or None)

    @property
    def total_published_messages(self) -> int:
        """Messages handed to the client."""
        return sum(self.published.values())

    def stop(self) -> None:
        """Have `run` return soon; may be called from another thread or from a signal handler."""
        self._stop.set()

    def connect(self) -> None:
        """Connect and wait until the broker accepted.

        Raises:
            PublisherError: when the broker is not there or says no.
        """
        where = f"the MQTT broker at {self._options.host}:{self._options.port}"
        try:
            self._client.connect(self._options.host, self._options.port)
        except OSError as error:
            raise PublisherError(f"cannot reach {where}: {error.strerror or error}") from error
        deadline = time.monotonic() + _CONNECT_LIMIT_SECONDS
        while not self._client.is_connected():
            ended = self._client.loop(_STEP_SECONDS) != mqtt.MQTT_ERR_SUCCESS
            if ended or self._refusal or time.monotonic() > deadline:
                raise PublisherError(f"{where} did not accept the connection: {self._refusal or 'no answer'}")

    def run(self, report: Callable[[int], None] = lambda _: None) -> None:
        """Publish to the topics in turn until the total is reached or `stop` is called.

        Args:
            report: is given the number of published messages now and then.
        """
        due = time.monotonic()
        for number, topic in enumerate(cycle(self._options.topics), start=1):
            if self._stop.is_set():
                return
            self.publish(topic)
            due += self._options.interval_seconds
            self._run_until(due)
            if number % _OUTSTANDING_MESSAGES == 0 or self._options.interval_seconds:
                report(number)
            if number == self._options.total_messages:
                return

    def publish(self, topic: str) -> None:
        """Publish the next message of a topic, after waiting for room."""
        number = self.published.setdefault(topic, 0)
        payload = make_payload(topic, number, self._options.payload_bytes, self.run_name)
        while self._client.publish(topic, payload, self._options.qos).rc == mqtt.MQTT_ERR_NO_CONN:
            # At QoS 1 and 2 the client keeps the message and sends it after the next connect by itself.
            if self._options.qos or self._stop.is_set():
                break
            self._reconnect()
        self.published[topic] = number + 1
        if self._outstanding_messages() >= self._window_messages:
            while self._outstanding_messages() > self._window_messages // 2 and not self._stop.is_set():
                self._step(_STEP_SECONDS)

    def drain(self) -> bool:
        """Wait until all is acknowledged; return whether it is, after the limit or without a connection."""
        deadline = time.monotonic() + _DRAIN_LIMIT_SECONDS
        while self._outstanding_messages() and time.monotonic() < deadline:
            self._step(_STEP_SECONDS)
            if self._stop.is_set() and not self._client.is_connected():
                break
        return not self._outstanding_messages()

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._client.disconnect()

    def _outstanding_messages(self) -> int:
        return self.total_published_messages - self.acknowledged_messages

    def _run_until(self, due: float) -> None:
        """Serve the connection until a moment of the monotonic clock."""
        while (left_seconds := due - time.monotonic()) > 0 and not self._stop.is_set():
            self._step(min(left_seconds, _STEP_SECONDS))

    def _step(self, timeout_seconds: float) -> None:
        if self._client.loop(timeout_seconds) != mqtt.MQTT_ERR_SUCCESS:
            self._reconnect()

    def _reconnect(self) -> None:
        """Try once a second until the broker is back or `stop` is called."""
        while not self._stop.wait(1.0) and not self._try_connect():
            pass

    def _try_connect(self) -> bool:
        try:
            self.connect()
        except PublisherError as error:
            print(f"publisher: {visible(str(error))}", file=sys.stderr, flush=True)
            return False
        return True

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        self._refusal = str(code) if code.is_failure else None

    def _on_publish(
        self, _client: mqtt.Client, _data: object, _message_id: int, _code: ReasonCode, _more: Properties
    ) -> None:
        self.acknowledged_messages += 1


def make_payload(topic: str, sequence: int, payload_bytes: int, run: str = "") -> bytes:
    """Return the JSON text of one message, at least so many bytes long.

    Args:
        topic: where it goes.
        sequence: its number.
        payload_bytes: how long it is at least.
        run: tells the numbers of one start from those of another.
    """
    sent_milliseconds = time.time_ns() // 1_000_000
    numbers = f'"run": {json.dumps(run)}, "sequence": {sequence}, "sent": {sent_milliseconds}'
    start = f'{{"topic": {json.dumps(topic)}, {numbers}, "pad": "'
    return (start.ljust(payload_bytes - 2, "x") + '"}').encode()
