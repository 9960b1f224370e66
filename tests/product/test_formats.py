"""Upgrade and downgrade: data directories of every format there ever was, and one of a format that is yet to come."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tables import layout
from tests.support.oracle import read, wait_until
from tests.support.system import Bridge
from tools.release import SAFELY

FORMATS = Path(__file__).parent / "formats"
ARCHIVES = sorted(FORMATS.glob("format-*.tar.gz"))
NUMBERED = 50
LARGE = b"large" * 500_000  # from format 2 on, in pieces
CLOSED = "127.0.0.1:1"


def unpacked(archive: Path, directory: Path) -> Path:
    """Return a data directory with what an archive holds."""
    with tarfile.open(archive) as packed:
        packed.extractall(directory, **SAFELY)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file under a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_there_is_a_directory_of_every_format():
    assert [archive.name for archive in ARCHIVES] == [
        f"format-{version}.tar.gz" for version in range(1, layout.FORMAT_VERSION + 1)
    ], "tests/product/formats/README.md says how one is made"
    assert all(archive.stat().st_size < 50_000 for archive in ARCHIVES)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name.partition(".")[0])
def test_what_an_earlier_version_stored_arrives_in_order_with_all_that_belongs_to_it(
    archive, mosquitto, kafka, names, tmp_path
):
    """P2 and P3: upgraded while messages wait, a dead letter among them, after a crash."""
    data, version = unpacked(archive, tmp_path / "data"), int(re.search(r"\d+", archive.name)[0])
    plant, lab = (name if version == 1 else f"{name}-{version}" for name in ("plant", "lab"))
    large = [LARGE] if version > 1 else []
    stored = NUMBERED + 1 + len(large)
    for topic in (plant, lab):
        kafka.create_topic(topic, max_message_bytes=10_000_000)
    mappings = f"{names.mqtt('#')}:new,plant/#:{plant},lab/#:{lab}"
    with Bridge(tmp_path / "bridge", mosquitto.port, kafka.bootstrap, mappings, db_persist_path=data) as bridge:
        oracle = read(kafka.bootstrap, [plant, lab], stored)
        wait_until(lambda: bridge.total("connector_undelivered_messages") == 0, "an empty table")
        assert bridge.total("connector_recovered_total") == stored
        assert bridge.status_page()["table"]["dead_letters"] == 1
        bridge.assert_balanced()
        values = {name: [each.value for each in oracle.records if each.topic == name] for name in (plant, lab)}
        assert values[plant] == [*(b"%d" % number for number in range(0, NUMBERED, 2)), *large, b"exactly"]
        assert values[lab] == [b"%d" % number for number in range(1, NUMBERED, 2)]
        assert len({each.headers["connector-id"] for each in oracle.records}) == stored
        assert {each.headers["connector-id"].partition(b"/")[0] for each in oracle.records} == {b"kept"}
        numbered = [each for each in oracle.records if each.value not in {b"exactly", LARGE}]
        for each in numbered:
            site = each.topic.partition("-")[0].encode()
            assert each.key == each.headers["mqtt-topic"] == b"%b/%d" % (site, int(each.value) % 3)
            assert each.headers["mqtt-content-type"] == b"text" and each.headers["mqtt-user-unit"] == b"K"
        listed = subprocess.run(
            [*bridge.command()[:-1], "dead-letters", "list"], capture_output=True, text=True, check=True,
            cwd=bridge.directory, env=dict(bridge.environment()),
        )  # fmt: skip
        assert "invalid_mqtt_topic" in listed.stdout
    assert (data / "format").read_text() == f"{layout.FORMAT_VERSION}\n"


@pytest.mark.parametrize("command", ["worker", "list", "retry"])
def test_a_format_that_is_yet_to_come_is_refused_and_nothing_is_touched(command, names, tmp_path):
    """A downgrade: exit code 3 with a sentence, before RocksDB opens anything, though its files look damaged here."""
    data = unpacked(ARCHIVES[-1], tmp_path / "data")
    (data / "format").write_text(f"{layout.FORMAT_VERSION + 1}\n")
    (data / "undelivered" / "CURRENT").write_text("MANIFEST-of-another-kind\n")
    before = contents(data)
    bridge = Bridge(tmp_path / "bridge", 1, CLOSED, f"{names.mqtt('#')}:records", db_persist_path=data)
    arguments = ["worker"] if command == "worker" else ["dead-letters", command]
    done = subprocess.run(
        [*bridge.command()[:-1], *arguments], capture_output=True, text=True, check=False, timeout=60,
        cwd=bridge.directory, env=dict(bridge.environment()),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert re.search(rf"written by a newer Connector \(format {layout.FORMAT_VERSION + 1}, .* start that", done.stderr)
    assert contents(data) == before
