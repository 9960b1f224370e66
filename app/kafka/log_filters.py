"""What of librdkafka's own log lines is written: not the same twice a second, and no value of its configuration."""

from __future__ import annotations

import logging
import re

from app.throttle import Throttle

LINES_A_MINUTE = 100  # what Kafka calls its nodes may be new each time; a cluster has many of them


class NoneEndsUs(logging.Filter):
    """Makes an error of what librdkafka finds fatal: its producer is replaced then, and the worker goes on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is to be written at all."""
        if record.levelno > logging.ERROR:
            record.levelno, record.levelname = logging.ERROR, logging.getLevelName(logging.ERROR)
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


class OncePerMinute(logging.Filter):
    """Lets librdkafka say the same thing once a minute; while Kafka is away it would say it twice a second."""

    # How long something took, and other numbers that change each time.
    _CHANGING = re.compile(r"\(.*?\)|\d+")
    _CLIENT = re.compile(r"#producer-\d+")  # each question to Kafka is asked by a client of its own

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle(logging.getLogger("librdkafka"), lines_a_minute=LINES_A_MINUTE)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log. What `debug` asks for is not thinned.

        The first words name the event and the thread, which is that of a node. Another reason is another thing: that
        a certificate is not trusted must not be lost behind a connection that was refused before.
        """
        if record.levelno <= logging.DEBUG:
            return True
        words = self._CLIENT.sub("", record.getMessage()).split()
        counts = self._throttle.count((" ".join(words[:3]), self._CHANGING.sub("", " ".join(words[3:]))))
        if counts is None:
            return False
        record.__dict__.update(counts)
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
