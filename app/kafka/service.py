"""The Kafka service: polls librdkafka for delivery reports, and has messages stored that are not confirmed in time.

It also replaces a producer that failed for good, and runs four tasks: `app.kafka.learning` asks for the limits of
topics, `app.kafka.watch` finds lanes that do not move, `app.kafka.ended_topics` ends those that are idle, and
`app.kafka.stranded` finds a librdkafka that does not learn any more where Kafka is.

A thread of its own for the poll would double the cost of a message (the interpreter lock changes hands each time).
While nothing is in flight, the service polls every half second, for librdkafka's statistics and errors; at the start
more often, as MQTT waits for the first word of Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from mode import Service

from app.errors import SettingsError
from app.kafka.contained import contained
from app.kafka.ended_topics import EndedTopics
from app.kafka.learning import Learning
from app.kafka.replaced_files import VARIABLES, UntrustedFileError
from app.kafka.stranded import Stranded
from app.kafka.watch import Watch
from app.settings.producer_properties import ALLOWED as PROPERTIES
from app.settings.tls_context import LOOK_SECONDS, WAIT_SECONDS

if TYPE_CHECKING:
    from app.core.reception import Reception
    from app.kafka.dispatcher import Dispatcher

POLL_SECONDS = 0.002
SLOW_POLL_SECONDS = 0.01  # when nothing was reported for a while, as in an outage
IDLE_SECONDS = 0.5
OUTAGE_AFTER_SECONDS = 0.2
FIRST_RENEWAL_SECONDS = 1.0  # between two replacements of the producer at first; it doubles up to INVOKE_LATENCY_SEC

_ALLOWED = {
    "KAFKA_CA_FILE": "a PEM file with certificates of authorities",
    "KAFKA_CERT_FILE": "a PEM file with a certificate",
    "KAFKA_KEY_FILE": "a PEM file with the private key of KAFKA_CERT_FILE, not encrypted (else ssl.key.password in "
    "KAFKA_PRODUCER_CONFIG must be its password)",
}


class KafkaService(Service):
    """Runs the producer."""

    mundane_level = "debug"

    def __init__(self, dispatcher: Dispatcher, topics: Iterable[str], reception: Reception, **kwargs: object) -> None:
        """Make the service.

        Args:
            dispatcher: What deals with delivery reports.
            topics: The Kafka topics that routes name, to ask for their limits.
            reception: Whether receiving is held up.
            **kwargs: For `mode.Service`.
        """
        self._dispatcher = dispatcher
        self._reception = reception
        self._learning = Learning(dispatcher, topics, self._has_ended)
        self._watch = Watch(dispatcher, self._has_ended)
        self._ended_topics = EndedTopics(dispatcher, self._has_ended)
        self._stranded = Stranded(dispatcher, self._has_ended)
        self._renew_at = 0.0
        self._renewal_seconds = FIRST_RENEWAL_SECONDS
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Start librdkafka; it need not reach Kafka. While its files may be in the middle of a change, try for seconds.

        Raises:
            SettingsError: librdkafka refuses the configuration.
        """
        give_up_at = time.monotonic() + WAIT_SECONDS
        while (problem := self._open()) is not None:
            if time.monotonic() >= give_up_at or not self._dispatcher.producer.files.may_be_replaced():
                raise SettingsError([problem])
            await asyncio.sleep(LOOK_SECONDS)
        self.add_future(self._poll())
        for what, run in (
            ("what learns of Kafka's topics", self._learning.run),
            ("the watch", self._watch.run),
            ("what ends idle lanes", self._ended_topics.run),
            ("what looks whether librdkafka learns where Kafka is", self._stranded.run),
        ):
            self.add_future(contained(what, run, self._has_ended))

    def _open(self) -> str | None:
        """Start librdkafka; return which setting it refuses, none if it started."""
        try:
            self._dispatcher.producer.open()
        except KafkaException as error:
            return _refusal(error)
        return None

    def _has_ended(self) -> bool:
        return bool(self.should_stop) or self._dispatcher.is_stopping

    async def on_stop(self) -> None:
        """End librdkafka; what it still holds is in the table."""
        self._dispatcher.producer.close()

    async def _poll(self) -> None:
        dispatcher, producer = self._dispatcher, self._dispatcher.producer
        look_every_seconds = max(0.005, dispatcher.policy.store_after_seconds / 4)
        look_at = reported_at = 0.0
        was_connected = False
        while not self.should_stop:
            reports = producer.poll()
            now = time.monotonic()
            if reports:
                reported_at = now
                dispatcher.on_reports(reports)
            if producer.is_fatal and not dispatcher.is_stopping and producer.give_back() and now >= self._renew_at:
                self._renew(now)
            if now >= look_at:
                look_at = now + look_every_seconds
                dispatcher.store_late(is_held_up=self._reception.is_held_up(now))
            if producer.connected != was_connected:
                was_connected = producer.connected
                dispatcher.look_at_all()
            if dispatcher.in_flight_messages:
                await asyncio.sleep(POLL_SECONDS if now - reported_at < OUTAGE_AFTER_SECONDS else SLOW_POLL_SECONDS)
            else:
                dispatcher.wake_poller.clear()
                wait_seconds = IDLE_SECONDS if dispatcher.topics.is_asked.is_set() else SLOW_POLL_SECONDS
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(dispatcher.wake_poller.wait(), wait_seconds)
                reported_at = time.monotonic()

    def _renew(self, now: float) -> None:
        """Replace the producer; where the next one fails as well, as without any right to write, ever more rarely."""
        longest_seconds = self._dispatcher.policy.longest_retry_seconds
        if now > self._renew_at + longest_seconds:
            self._renewal_seconds = FIRST_RENEWAL_SECONDS
        self._renew_at = now + self._renewal_seconds
        self._renewal_seconds = min(self._renewal_seconds * 2, longest_seconds)
        self._dispatcher.producer.replace()


def _refusal(error: KafkaException) -> str:
    """Return a sentence that names the setting that librdkafka refuses; its own text may repeat a secret value."""
    if isinstance(error, UntrustedFileError):
        return error.args[0].str()
    text = str(error)
    reason = re.search(r"error:[0-9A-F]{8}:[\w ]+::([\w ]+)", text)
    why = f"; OpenSSL says: {reason[1]}" if reason else ""
    for name, variable in VARIABLES.items():
        if name in text:
            return f"{variable} (or {name} in KAFKA_PRODUCER_CONFIG): must be {_ALLOWED[variable]}{why}"
    found = re.search(rf"\b({'|'.join(map(re.escape, PROPERTIES))})\b", text)
    what = f"the property {found[1]}" if found else "the value of a property"
    return f"KAFKA_PRODUCER_CONFIG: librdkafka refuses {what}{why}; see docs/kafka-client.md"
