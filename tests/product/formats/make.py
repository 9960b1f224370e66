"""Makes a data directory of the present format, for the tests of later versions: `tests/product/formats/README.md`."""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from pathlib import Path

from tables import layout
from tests.support.oracle import wait_until
from tests.support.scripted_broker import PUBACK, PUBREC, ScriptedBroker, packet_of
from tests.support.system import Bridge

# Kafka topics of its own for each format, as the tests of all of them share one Kafka.
MAPPINGS = f"plant/#:plant-{layout.FORMAT_VERSION},lab/#:lab-{layout.FORMAT_VERSION}"
LARGE = b"large" * 500_000  # in pieces; the archive stays small all the same
NUMBERED = 50
# MQTT 5: content type, and a user property.
PROPERTIES = b"\x03\x00\x04text\x26\x00\x04unit\x00\x01K"
# RocksDB makes these anew, and they are larger than all the rest.
LEFT_OUT = ("LOG", "OPTIONS", "LOCK")


def fill(directory: Path) -> Path:
    """Have a worker without Kafka take messages, and kill it; return its data directory."""
    with ScriptedBroker() as broker:
        bridge = Bridge(directory, broker.port, "127.0.0.1:1", MAPPINGS, mqtt_client_id="kept")
        with bridge:
            broker.wait_for_subscriptions(2)
            for number in range(NUMBERED):
                topic = f"{('plant', 'lab')[number % 2]}/{number % 3}".encode()
                head = len(topic).to_bytes(2, "big") + topic + (number + 1).to_bytes(2, "big")
                broker.send(packet_of(0x32, head + bytes([len(PROPERTIES)]) + PROPERTIES + b"%d" % number))
            broker.publish("plant/large", LARGE, 1, 59)
            broker.publish("plant/twice", b"exactly", 2, 60)
            broker.publish(b"plant/\xff", b"no UTF-8 in its topic", 1, 61)
            broker.wait_for(PUBREC)
            broker.wait_for(PUBACK, NUMBERED + 2)
            wait_until(lambda: bridge.status_page()["table"]["dead_letters"] == 1, "a dead letter")
            bridge.kill()
    return directory / "data"


def pack(data: Path, archive: Path) -> None:
    """Pack what a start needs of it."""
    with tarfile.open(archive, "w:gz") as packed:
        for file in sorted(data.rglob("*")):
            if file.is_file() and not file.name.startswith(LEFT_OUT) and file.name != "ballast":
                content = file.read_bytes()
                entry = tarfile.TarInfo(file.relative_to(data).as_posix())
                entry.size, entry.mode = len(content), 0o600
                packed.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        target = Path(__file__).parent / f"format-{layout.FORMAT_VERSION}.tar.gz"
        pack(fill(Path(place) / "bridge"), target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
