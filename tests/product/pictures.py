"""The pictures of the status page in the documents: `make pictures` takes them anew, in about three minutes.

A worker with varying traffic and one outage of Kafka, as Chromium shows it on a desk, and in the dark on a phone.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
import threading
import time
from pathlib import Path

from tests.support.browser import PHONE, Browser, chromium
from tests.support.oracle import wait_until
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, Mosquitto

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs"
DESK = (1100, 830)
MAPPINGS = "plant/+/temperature:temperature,plant/+/pressure:pressure,alarms:alarms"
BEFORE_SECONDS, OUTAGE_SECONDS, AFTER_SECONDS = 60, 20, 40


def publish(publisher: Publisher, ended: threading.Event) -> None:
    """Publish 60 to 140 messages a second, in waves, until the end."""
    number = 0
    while not ended.wait(1 / (100 + 40 * math.sin(time.monotonic() / 7))):
        kind = "temperature" if number % 3 else "pressure"
        publisher.publish("alarms" if number % 50 == 0 else f"plant/line{number % 4}/{kind}")
        number += 1


def look(browser: Browser, bridge: Bridge, kafka: Kafka, directory: Path) -> None:
    """Let it run, with an outage, and take the pictures."""
    browser.open(f"{bridge.url}/", DESK)
    time.sleep(BEFORE_SECONDS)
    kafka.stop()
    time.sleep(OUTAGE_SECONDS)
    kafka.start()
    wait_until(lambda: browser.text("backlog") == "✓ 0 messages", "an empty backlog")
    time.sleep(AFTER_SECONDS)
    browser.wait_for_text("headline-text", "All is well.")
    browser.screenshot(directory / "status-page.png")
    browser.resize(PHONE)
    browser.prefer("dark")
    browser.screenshot(directory / "status-page-phone.png")


def main() -> None:
    """Start everything, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=DOCUMENTS, help="where the pictures go")
    directory = parser.parse_args().directory
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("mosquitto", "kafka", "connector-1", "chromium"):
            (temporary / name).mkdir()
        mosquitto = stack.enter_context(Mosquitto(temporary / "mosquitto"))
        kafka = stack.enter_context(Kafka(temporary / "kafka"))
        for topic in ("temperature", "pressure", "alarms"):
            kafka.create_topic(topic)
        settings = {"mqtt_client_id": "connector-1", "undelivered_max_bytes": 1_000_000_000}
        bridge = stack.enter_context(
            Bridge(temporary / "connector-1", mosquitto.port, kafka.bootstrap, MAPPINGS, **settings)
        )
        publisher = stack.enter_context(Publisher(mosquitto.port))
        ended = threading.Event()
        thread = threading.Thread(target=publish, args=(publisher, ended))
        thread.start()
        try:
            with chromium(temporary / "chromium") as browser:
                look(browser, bridge, kafka, directory)
        finally:
            ended.set()
            thread.join()


if __name__ == "__main__":
    main()
