"""The memory limit in force, what is derived from it, and that a large message exists no more often than it must."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from confluent_kafka import KafkaError
from paho.mqtt.enums import MQTTProtocolVersion

from app.core.lane_states import State
from app.core.memory_budget import MemoryBudget
from app.core.message import Message
from app.errors import StoreError
from app.memory import MEBIBYTE, PROCESS_BYTES, MemoryLimit, memory_limit, plan_for
from app.mqtt.client import BridgeClient
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.window import Window
from tables import layout
from tables.entry import pack_entry
from tests.support.dispatched import Dispatched
from tests.support.scripted_broker import connack_packet, publish_packet
from tests.support.stored_messages import make_table

KAFKA_BYTES = 103_000_000
MOUNTS = {
    "cgroup2": "30 20 0:28 {top} {mount} rw - cgroup2 cgroup2 rw,nsdelegate\n",
    "cgroup": "35 31 0:32 {top} {mount} rw,relatime - cgroup cgroup rw,memory\n",
}
GROUPS = {"cgroup2": "0::{group}\n", "cgroup": "9:name=systemd:/\n4:memory:{group}\n0::/\n"}
FILES = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
NO_LIMIT = {"cgroup2": "max", "cgroup": "9223372036854771712"}


def system(root, kind, group, limits, top="/", mount="/sys/fs/cgroup"):
    """Make a file system with the control groups of a process; `limits` are by directory below the mount."""
    process = root / "proc/self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(GROUPS[kind].format(group=group))
    (process / "mountinfo").write_text("22 1 0:1 / / rw - ext4 disk rw\n" + MOUNTS[kind].format(top=top, mount=mount))
    for directory, limit in limits.items():
        path = root / mount.lstrip("/") / directory
        path.mkdir(parents=True, exist_ok=True)
        (path / FILES[kind]).write_text(f"{limit or NO_LIMIT[kind]}\n")
    return root


@pytest.mark.parametrize("kind", MOUNTS)
@pytest.mark.parametrize(
    ("group", "limits", "expected"),
    [
        ("/pod/box", {"": 0, "pod": 0, "pod/box": 400 * MEBIBYTE}, 400 * MEBIBYTE),
        ("/pod/box", {"": 0, "pod": 300 * MEBIBYTE, "pod/box": 400 * MEBIBYTE}, 300 * MEBIBYTE),
        ("/pod/box", {"": 200 * MEBIBYTE, "pod": 0, "pod/box": 0}, 200 * MEBIBYTE),
        ("/", {"": 100 * MEBIBYTE}, 100 * MEBIBYTE),
        ("/elsewhere/box", {"": 90 * MEBIBYTE}, 90 * MEBIBYTE),  # the group itself is not shown in here
    ],
)
def test_the_limit_is_the_smallest_of_the_control_group_and_all_above_it(kind, group, limits, expected, tmp_path):
    limit = memory_limit(system(tmp_path, kind, group, limits))
    assert limit.size_bytes == expected
    assert FILES[kind] in limit.source


@pytest.mark.parametrize("kind", MOUNTS)
def test_in_a_container_whose_group_is_the_top_of_what_it_sees_the_limit_is_found(kind, tmp_path):
    """As Docker mounts them: the process is said to be in /docker/abc, and that is what is mounted."""
    root = system(tmp_path, kind, "/docker/abc", {"": 77 * MEBIBYTE}, top="/docker/abc")
    assert memory_limit(root).size_bytes == 77 * MEBIBYTE


def test_a_mount_whose_name_is_no_utf_8_hides_no_limit(tmp_path):
    root = system(tmp_path, "cgroup2", "/pod", {"pod": 66 * MEBIBYTE})
    mounts = root / "proc/self/mountinfo"
    mounts.write_bytes(b"40 1 0:40 / /media/caf\xe9 rw - vfat /dev/sdb1 rw\n" + mounts.read_bytes())
    assert memory_limit(root).size_bytes == 66 * MEBIBYTE


def test_without_control_groups_half_of_the_machine_is_the_limit(tmp_path):
    assert memory_limit(tmp_path).source == "half of the machine's memory"


@pytest.mark.parametrize(
    ("limit_mebibytes", "least", "most"), [(512, 30_000_000, 40_000_000), (768, 55_000_000, 70_000_000)]
)
def test_what_the_manifests_allow_carries_what_the_documents_say(limit_mebibytes, least, most):
    packets = plan_for(MemoryLimit(limit_mebibytes * MEBIBYTE, "the test")).packet_limit(None, KAFKA_BYTES)
    assert least <= packets.size_bytes <= most
    assert "the test" in packets.reason
    assert not packets.danger


def test_kafkas_client_bounds_what_much_memory_would_carry():
    packets = plan_for(MemoryLimit(64_000 * MEBIBYTE, "the test")).packet_limit(None, KAFKA_BYTES)
    assert packets.size_bytes == KAFKA_BYTES
    assert "message.max.bytes" in packets.reason


def test_a_setting_above_what_kafkas_client_takes_is_said_to_be_beaten():
    packets = plan_for(MemoryLimit(64_000 * MEBIBYTE, "the test")).packet_limit(2 * KAFKA_BYTES, KAFKA_BYTES)
    assert packets.size_bytes == KAFKA_BYTES
    assert "message.max.bytes" in packets.reason
    assert f"below the {2 * KAFKA_BYTES} of MQTT_MAXIMUM_PACKET_BYTES" in packets.reason


def test_a_setting_above_what_memory_carries_is_taken_and_the_danger_is_said_with_both_numbers():
    plan = plan_for(MemoryLimit(512 * MEBIBYTE, "the test"))
    packets = plan.packet_limit(100_000_000, KAFKA_BYTES)
    assert packets.size_bytes == 100_000_000
    for number in (100_000_000, 512 * MEBIBYTE, plan.largest_packet_bytes):
        assert str(number) in packets.danger


def test_too_little_memory_for_any_message_is_said():
    assert plan_for(MemoryLimit(PROCESS_BYTES, "the test")).packet_limit(None, KAFKA_BYTES).danger


# --- copies


class Receiver:
    """A client without a socket, and what it handed over."""

    def __init__(self, version=5, largest_packet_bytes=KAFKA_BYTES):
        self.batches = []
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        session = Session(Generations(("a/#",), {"a/#": 1}))
        self.client = BridgeClient(
            "c",
            protocol,
            session,
            Window(lambda: None),
            lambda batch, _: self.batches.append(batch),
            largest_packet_bytes,
        )
        self.client.reader.feed(connack_packet(version))

    def take(self, packet, piece_bytes=200_000):
        for start in range(0, len(packet), piece_bytes):
            self.client.reader.feed(packet[start : start + piece_bytes])

    @property
    def payloads(self):
        return [message.payload for batch in self.batches for message in batch.messages]


@pytest.mark.parametrize("version", [4, 5])
def test_a_large_payload_exists_once_when_it_was_received(version):
    payload = bytes(range(256)) * 80_000
    packet = publish_packet("a/b", payload, 1, 7, version=version, subscriptions=(1,))
    receiver = Receiver(version)
    tracemalloc.start()
    try:
        receiver.take(packet)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert receiver.payloads == [payload]
    assert peak_bytes < 1.2 * len(payload), f"{peak_bytes / len(payload):.1f} times the payload"


def test_packets_around_a_large_one_come_in_their_order_wherever_the_train_is_cut():
    payloads = [b"first", bytes(300_000), b"second", b"\1" * 262_144, bytes(262_140), b"third"]
    train = b"".join(
        publish_packet("a/b", payload, 1, number, subscriptions=(1,)) for number, payload in enumerate(payloads, 1)
    )
    for piece_bytes in (65_537, 199_999, 262_150, 300_020, len(train)):
        receiver = Receiver()
        receiver.take(train, piece_bytes)
        assert receiver.payloads == payloads, f"cut into pieces of {piece_bytes} bytes"


def test_the_entry_of_a_large_message_is_the_same_as_messagepack_makes_it_and_takes_one_copy():
    message = Message.restored(
        b"Ut\0key", "a:t", 1_700_000_000_000, b"key", [("mqtt-topic", b"a")] * 20, bytes(5_000_000), "why", 0
    )
    fields = (message.route, message.timestamp_ms, message.record_key, message.headers, message.payload)
    expected = msgpack.packb((*fields, message.dead_reason, message.kept_since))
    tracemalloc.start()
    try:
        entry = pack_entry(message)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entry == expected
    assert peak_bytes < 1.2 * len(message.payload)


# --- what may be held


def test_a_large_packet_waits_for_room_and_is_never_refused_for_ever():
    budget = MemoryBudget(limit_bytes=10_000_000)
    assert not budget.check_full(50_000_000), "nothing else is held"
    budget.received_messages, budget.received_bytes = 1, 6_000_000
    assert not budget.check_full()
    assert not budget.check_full(4_000_000)
    assert budget.check_full(4_000_001)
    budget.safe_messages, budget.safe_bytes = 1, 6_000_000
    assert not budget.check_full(50_000_000)


@pytest.fixture
def dispatcher():
    """Return lanes of which all together may have 20 MB in flight, and each 16 MB."""
    made = Dispatched(limit_bytes=20_000_000)
    made.open_up("a", "b", "c")
    return made


def test_one_message_at_a_time_exceeds_what_may_be_in_flight_and_small_ones_pass_it(dispatcher):
    """Before, each lane could have one of any size: fifty lanes, fifty large messages."""
    first, second = dispatcher.message("a", 1, 30_000_000), dispatcher.message("b", 1, 30_000_000)
    small = dispatcher.message("c", 1, 100)
    for message in (first, second, small):
        dispatcher.send(message)
    assert dispatcher.producer.taken == [first, small]
    assert dispatcher.lanes["b"].state is State.BEHIND, "it waits in the table"
    assert not dispatcher.wanted_messages(dispatcher.lanes["b"]), "and is not read from there again and again"
    dispatcher.producer.report(dispatcher, [first])
    assert "b" in dispatcher.named_for_replay, "the replay reader is told to look"
    assert dispatcher.wanted_messages(dispatcher.lanes["b"])


def test_a_lane_whose_large_message_is_refused_holds_up_no_other_lane(dispatcher):
    first, second = dispatcher.message("a", 1, 30_000_000), dispatcher.message("b", 1, 30_000_000)
    dispatcher.send(first)
    dispatcher.producer.report(dispatcher, [first], KafkaError(KafkaError.NOT_ENOUGH_REPLICAS))
    dispatcher.send(second)
    assert dispatcher.producer.taken == [second]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_large_payload_is_let_go_of_when_kafka_has_it_however_long_its_acknowledgement_waits(dispatcher, qos):
    """An older message may hold up the acknowledgements of a thousand others, which are with Kafka."""
    large, small = dispatcher.message("a", 1, 1_000_000, qos), dispatcher.message("a", 2, 100, qos)
    fingerprint = large.fingerprint
    dispatcher.accept("a", [large, small])
    for message in (large, small):
        dispatcher.producer.report(dispatcher, [message])
    assert not large.payload
    assert len(small.payload) == 100
    assert large.fingerprint == fingerprint, "to know its repetition"


# --- large values in the table


def table_with_large_values(directory):
    """Make a table with ten messages, every other one large, and return the directory of its files."""
    table = make_table(directory)
    table.open()
    table.begin_epoch()
    write = table.begin()
    prefix = layout.undelivered_prefix("t")
    write.append(
        [
            Message.restored(
                prefix + layout.pack_sequence(1, number),
                "a:t",
                1,
                None,
                [],
                bytes(600_000 if number % 2 else 100),
                "",
                0,
            )
            for number in range(10)
        ]
    )
    write.commit()
    table.data.database.flush()
    table.sync_now()
    table.close()
    return directory / "undelivered"


def sizes_after_salvage(directory):
    """Start twice, as the first read meets the damage; return what is left, and how many were counted as lost."""
    prefix = layout.undelivered_prefix("t")
    for _ in range(2):
        table = make_table(directory)
        table.open()
        table.begin_epoch()
        try:
            return [len(message.payload) for message in table.read(prefix, prefix, 100, 10**9)], table.lost_messages
        except StoreError:
            continue
        finally:
            table.close()
    raise AssertionError("the second start cannot read either")


def test_a_flipped_bit_in_a_file_of_large_values_loses_one_of_them(tmp_path):
    (path,) = table_with_large_values(tmp_path).glob("*.blob")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    sizes, lost = sizes_after_salvage(tmp_path)
    assert (sizes.count(100), sizes.count(600_000), lost) == (5, 4, 1)


def test_without_the_files_of_large_values_small_messages_are_found_and_large_ones_counted(tmp_path):
    for path in table_with_large_values(tmp_path).glob("*.blob"):
        path.unlink()
    sizes, lost = sizes_after_salvage(tmp_path)
    assert sizes == [100] * 5
    assert lost == 5


@pytest.mark.parametrize("missing", [("MANIFEST-*", "CURRENT"), ("MANIFEST-*",), ("CURRENT",)])
def test_without_the_list_of_files_large_values_are_found_and_removed_ones_do_not_come_back(missing, tmp_path):
    """RocksDB's own repair forgets their files."""
    directory = table_with_large_values(tmp_path)
    table = make_table(tmp_path)
    table.open()
    table.begin_epoch()
    prefix = layout.undelivered_prefix("t")
    write = table.begin()
    write.remove([message for message in table.read(prefix, prefix, 4, 10**9) if len(message.payload) > 100])
    write.commit()
    table.close()
    for path in [path for pattern in missing for path in directory.glob(pattern)]:
        path.unlink()
    sizes, lost = sizes_after_salvage(tmp_path)
    assert (sizes.count(100), sizes.count(600_000), lost) == (5, 3, 0)


@pytest.mark.parametrize("place", [5, -10])
def test_a_damaged_header_or_footer_of_a_file_of_large_values_costs_none_of_them(place, tmp_path):
    """RocksDB reads nothing of a file of which it cannot read these."""
    (path,) = table_with_large_values(tmp_path).glob("*.blob")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    sizes, lost = sizes_after_salvage(tmp_path)
    assert (sizes.count(100), sizes.count(600_000), lost) == (5, 5, 0)
