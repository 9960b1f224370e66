"""What of librdkafka's own log lines is written: not the same twice a second, and no value of its configuration."""

from __future__ import annotations

import logging
import re
import time


class OncePerMinute(logging.Filter):
    """Lets librdkafka say the same thing once a minute; while Kafka is away it would say it twice a second."""

    def __init__(self, repeat_seconds: float) -> None:
        super().__init__()
        self._repeat_seconds = repeat_seconds
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log; the first words name the event and the thread. What `debug` asks for is not thinned."""
        if record.levelno <= logging.DEBUG:
            return True
        what = " ".join(record.getMessage().split()[:3])
        now = time.monotonic()
        if now < self._said.get(what, 0.0):
            return False
        self._said[what] = now + self._repeat_seconds
        return True


class WithoutValues(logging.Filter):
    """Hides the values of the configuration, which librdkafka lists with `debug`; by itself it hides passwords only.

    KAFKA_PRODUCER_CONFIG counts as a secret, whatever the property.
    """

    _LISTED = re.compile(r"^(CONF .*\]:   [a-z0-9._]+ = ).*", re.DOTALL)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, such lines without their value."""
        record.msg, record.args = self._LISTED.sub(r"\1(not shown)", record.getMessage()), ()
        return True
