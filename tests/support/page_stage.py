"""What the tests of the status page look at: a worker between two brokers, with traffic, dead letters and a token."""

from __future__ import annotations

import json
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from tests.support.oracle import wait_until
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, Mosquitto

TOKEN = "a-token-for-the-tests"
# As MQTT topics: markup, also with letters from right to left and what nobody sees, and a text as wide as a phone.
HOSTILE_TOPICS = (
    "page/dead/<script>window.hacked = 1</script>",
    "page/dead/<img src=x onerror='window.hacked = 1'>/בית/12\u202e\u200b\U000e0041",
    "page/dead/" + "a-level-without-any-blank-or-hyphenation-point".replace("-", "_") * 3,
)
SMALL_BYTES = 20_000  # what the topic of the dead letters takes
PAUSE_SECONDS = 0.02


class Stage:
    """A worker, and a publisher that sends about 50 messages a second until the end."""

    def __init__(self, directory: Path, mosquitto: Mosquitto, kafka: Kafka) -> None:
        self.kafka = kafka
        mappings = "page/line/+:page.measurements,page/state:page.state,page/dead/#:page.small"
        self.bridge = Bridge(
            directory, mosquitto.port, kafka.bootstrap, mappings, web_token=TOKEN, undelivered_max_bytes=200_000_000
        )
        self.publisher = Publisher(mosquitto.port)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def _publish(self) -> None:
        number = 0
        while not self._ended.wait(PAUSE_SECONDS):
            self.publisher.publish("page/state" if number % 5 == 0 else f"page/line/{number % 3}")
            number += 1

    def __enter__(self) -> Self:
        # The tests of a module that are shared out may set this up twice, at one Kafka.
        if "page.small" not in self.kafka.admin().list_topics(timeout=30).topics:
            for topic in ("page.measurements", "page.state"):
                self.kafka.create_topic(topic)
            self.kafka.create_topic("page.small", 1, **{"max.message.bytes": SMALL_BYTES})
        self.bridge.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.publisher.close()
        self.bridge.stop()

    def have_dead_letters(self, topics: Sequence[str] = HOSTILE_TOPICS) -> None:
        """Have one dead letter for each topic."""
        self.have_no_dead_letters()
        for seed, topic in enumerate(topics):
            self.publisher.raw(topic, b"<b>bold</b>" + random.Random(seed).randbytes(2 * SMALL_BYTES))
        wanted = len(topics)
        wait_until(lambda: self.bridge.status_page()["table"]["dead_letters"] == wanted, f"{wanted} dead letters")

    def have_no_dead_letters(self) -> None:
        """Delete all."""
        assert post(self.bridge, "delete", {"all": True}, TOKEN)[0] == 200
        wait_until(lambda: not self.bridge.status_page()["table"]["dead_letters"], "no dead letters")


def post(bridge: Bridge, action: str, body: Any, token: str | None = None) -> tuple[int, dict[str, Any]]:
    """Ask for a change as a program would; return the HTTP status and what was answered."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    request = urllib.request.Request(f"{bridge.url}/dead-letters/{action}", data, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if error.headers.get_content_type() == "application/json" else {}
