"""What the demonstration says: where to look, what was published and what of it arrived."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table

from clients.sequences import RecordCheck, TopicSequence
from clients.subscriber_kafka import check, line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

# The MQTT topics of the demonstration and the Kafka topics that they arrive in.
MAPPINGS = {
    "plant/line1/temperature": "temperature",
    "plant/line1/pressure": "pressure",
    "plant/line1/alarm": "alarms",
}
_COLUMNS = ("Kafka topic", "published", "arrived", "missing", "duplicated", "out of order")

SCREEN = """\
The bridge runs between {mqtt_title} and {kafka_title}.

Publish a message of your own:
  .venv/bin/python -m clients.publisher_mqtt --broker {mqtt} --topics plant/line2/alarm --messages 10
  mosquitto_pub -h {mqtt_host} -p {mqtt_port} -q 1 -t plant/line2/alarm -m hello

Look at what arrives in Kafka:
  .venv/bin/python -m clients.subscriber_kafka --broker {kafka} --topics alarms --from-beginning

Open in a browser what the bridge says of itself:
  {url}/

What happens when Kafka goes away or the bridge is killed: docs/tutorial.md shows it, step by step.

{end}
"""


class Report:
    """Compares the records in Kafka with what was published."""

    def __init__(self, published: Mapping[str, int], run_name: str) -> None:
        """Begin with nothing.

        Args:
            run_name: of the publisher whose messages count.
            published: the number of messages of each MQTT topic; looked at again at each question.
        """
        self._published = published
        self._run_name = run_name
        self._checked = RecordCheck(first=0)
        self._last: Message | None = None

    def add(self, message: Message) -> None:
        """Take the next record."""
        check(self._checked, message)
        self._last = message

    def complete(self) -> bool:
        """Tell whether nothing is missing."""
        return not any(self._missing(topic) for topic in MAPPINGS)

    def exact(self) -> bool:
        """Tell whether all arrived exactly once and in order."""
        sequences = [self._sequence(topic) for topic in MAPPINGS]
        return self.complete() and not any(each.duplicates or each.inversions for each in sequences)

    def line(self) -> str:
        """Return the state of things on one line."""
        arrived = "  ".join(f"{topic} {self._checked.records.get(topic, 0)}" for topic in MAPPINGS.values())
        last = line(self._last) if self._last is not None else "nothing yet"
        return f"{time.strftime('%H:%M:%S')}  in Kafka: {arrived}  last: {last}"

    def summary(self) -> Table:
        """Return the result."""
        table = Table(*_COLUMNS, caption=self._caption())
        for mqtt_topic, kafka_topic in MAPPINGS.items():
            sequence = self._sequence(mqtt_topic)
            numbers = (
                self._published.get(mqtt_topic, 0),
                sequence.received,
                self._missing(mqtt_topic),
                sequence.duplicates,
                sequence.inversions,
            )
            table.add_row(kafka_topic, *(str(number) for number in numbers))
        return table

    def _caption(self) -> str | None:
        """Return how many records somebody else published, if any."""
        others = sum(self._checked.records.values()) - sum(self._sequence(topic).received for topic in MAPPINGS)
        return f"and {others} of your own" if others else None

    def _sequence(self, mqtt_topic: str) -> TopicSequence:
        return self._checked.sequences.topics.get(f"{mqtt_topic} (run {self._run_name})", TopicSequence())

    def _missing(self, mqtt_topic: str) -> int:
        sequence = self._sequence(mqtt_topic)
        return self._published.get(mqtt_topic, 0) - (sequence.received - sequence.duplicates)
