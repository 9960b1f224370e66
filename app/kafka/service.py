"""The Kafka service: starts and ends librdkafka, and everything that runs on the Kafka side as long as the worker does.

These are five tasks: `app.kafka.reports` polls for delivery reports, `app.kafka.learning` asks for the limits of
topics, `app.kafka.watch` finds lanes that do not move, `app.kafka.ended_topics` ends those that are idle, and
`app.kafka.stranded` finds a librdkafka that does not learn any more where Kafka is. After each poll the service itself
looks whether messages are to be stored, as Kafka did not confirm them in time, replaces a producer that failed for
good, and has all lanes looked at when Kafka has come or gone.
"""

from __future__ import annotations

import asyncio
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
    from app.kafka.reports import Reports

FIRST_RENEWAL_SECONDS = 1.0  # between two replacements of the producer at first; it doubles up to INVOKE_LATENCY_SEC

_ALLOWED = {
    "KAFKA_CA_FILE": "a PEM file with certificates of authorities",
    "KAFKA_CERT_FILE": "a PEM file with a certificate",
    "KAFKA_KEY_FILE": "a PEM file with the private key of KAFKA_CERT_FILE, not encrypted (else ssl.key.password in "
    "KAFKA_PRODUCER_CONFIG must be its password)",
}


class KafkaService(Service):
    """Runs the Kafka side; see the module's header."""

    mundane_level = "debug"

    def __init__(
        self,
        dispatcher: Dispatcher,
        reports: Reports,
        topics: Iterable[str],
        reception: Reception,
        **kwargs: object,
    ) -> None:
        """Make the service.

        Args:
            dispatcher: The lanes, and the producer.
            reports: What polls for delivery reports.
            topics: The Kafka topics that routes name, to ask for their limits.
            reception: Whether receiving is held up.
            **kwargs: For `mode.Service`.
        """
        self._dispatcher = dispatcher
        self._reports = reports
        self._reception = reception
        self._learning = Learning(dispatcher, topics, self._has_ended)
        self._watch = Watch(dispatcher, self._has_ended)
        self._ended_topics = EndedTopics(dispatcher, self._has_ended)
        self._stranded = Stranded(dispatcher, self._has_ended)
        self._look_late_at = 0.0
        self._was_connected = False
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
        # Until the service ends: during the stop sequence, when the other four have ended, Kafka still confirms.
        self.add_future(self._reports.poll(lambda: bool(self.should_stop), self._look))
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

    def _look(self, now: float) -> None:
        """Look, after each poll, whether a producer is to be replaced, messages to be stored, or lanes looked at."""
        dispatcher, producer = self._dispatcher, self._dispatcher.producer
        if producer.is_fatal and not dispatcher.is_stopping and producer.give_back() and now >= self._renew_at:
            self._renew(now)
        if now >= self._look_late_at:
            self._look_late_at = now + max(0.005, dispatcher.policy.store_after_seconds / 4)
            dispatcher.store_late(is_held_up=self._reception.is_held_up(now))
        if producer.connected != self._was_connected:
            self._was_connected = producer.connected
            dispatcher.look_at_all()

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
