"""A client that publishes numbered messages to an MQTT broker: `python -m clients.publisher_mqtt`.

Each payload is a JSON text with the topic, a number that counts per topic from 0, and the time; the
subscriber finds losses, repetitions and wrong order by the number.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from app.characters import visible
from clients.options import Environment, address, at_least_zero, publish_topic_list, quality_of_service, seconds
from clients.progress import display
from clients.publishing import Options, Publisher, PublisherError

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_arguments(arguments: Sequence[str] | None) -> Options:
    """Return the options of the command line, else of the environment, else of `.env`."""
    known = Environment()
    host, port = known.get("MQTT_BROKER_URL", "127.0.0.1"), known.get("MQTT_BROKER_PORT")
    parser = argparse.ArgumentParser(
        prog="python -m clients.publisher_mqtt",
        description="Publish numbered messages.",
        epilog="Each option may also stand in the environment or in .env: MQTT_BROKER_URL, MQTT_BROKER_PORT, "
        "PUBLISHER_TOPIC_LIST, PUBLISHER_INTERVAL_SEC, PUBLISHER_TOTAL_MESSAGES, PUBLISHER_PAYLOAD_BYTES, "
        "PUBLISHER_QOS, MQTT_USER_NAME, MQTT_USER_PASSWORD.",
    )
    add = parser.add_argument
    add("--broker", type=address, default=f"{host}:{port}" if port else host, metavar="HOST[:PORT]")
    add(
        "--topics",
        type=publish_topic_list,
        default=known.get("PUBLISHER_TOPIC_LIST", "connector/test"),
        metavar="A/B,C/D",
    )
    add("--interval-seconds", type=seconds, default=known.get("PUBLISHER_INTERVAL_SEC", "1"), help="0: at full speed")
    add("--messages", type=at_least_zero, default=known.get("PUBLISHER_TOTAL_MESSAGES", "0"), help="0: until Ctrl-C")
    add("--payload-bytes", type=at_least_zero, default=known.get("PUBLISHER_PAYLOAD_BYTES", "0"), help="at least")
    add("--qos", type=quality_of_service, default=known.get("PUBLISHER_QOS", "1"))
    add("--username", default=known.get("MQTT_USER_NAME"))
    add("--password", default=known.get("MQTT_USER_PASSWORD"), help="better given as MQTT_USER_PASSWORD")
    add("--client-id", default="", help="made up by the broker where none is given")
    given = parser.parse_args(arguments)
    return Options(
        host=given.broker[0],
        port=given.broker[1],
        topics=given.topics,
        interval_seconds=given.interval_seconds,
        total_messages=given.messages,
        payload_bytes=given.payload_bytes,
        qos=given.qos,
        user_name=given.username,
        password=given.password,
        client_id=given.client_id,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish as the options say; return the exit status."""
    options = parse_arguments(arguments)
    publisher = Publisher(options)
    interrupted = threading.Event()

    def interrupt(_signal_number: int, _frame: object) -> None:
        interrupted.set()
        publisher.stop()

    former = signal.signal(signal.SIGINT, interrupt)
    try:
        complete = _publish(publisher, options)
    except PublisherError as error:
        print(f"publisher: {visible(str(error))}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, former)
    if interrupted.is_set():
        return 130
    return 0 if complete else 1


def _publish(publisher: Publisher, options: Options) -> bool:
    """Publish everything and print the sum; return whether the broker acknowledged it all."""
    publisher.connect()
    started = time.monotonic()
    with display(options.total_messages) as shown:
        publisher.run(shown.show)
        complete = publisher.drain()
        shown.show(publisher.acknowledged_messages)
    took_seconds = time.monotonic() - started
    publisher.close()
    rate = publisher.acknowledged_messages / max(took_seconds, 0.001)
    print(
        f"{publisher.acknowledged_messages} messages to {', '.join(options.topics)} in {took_seconds:.1f} seconds, "
        f"{rate:.0f} messages a second"
    )
    if not complete:
        lost = publisher.total_published_messages - publisher.acknowledged_messages
        print(f"publisher: {lost} messages were not acknowledged", file=sys.stderr)
    return complete


if __name__ == "__main__":
    sys.exit(main())
