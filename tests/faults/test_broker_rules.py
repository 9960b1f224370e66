"""A broker that breaks the rules of MQTT on each connection: what a worker logs and keeps meanwhile. No Kafka."""

from __future__ import annotations

from pathlib import Path

from tests.support.failing_worker import FailingBridge
from tests.support.oracle import wait_until
from tests.support.scripted_broker import (
    CONNECT,
    PUBACK,
    ScriptedBroker,
    packet_of,
    variable_byte_integer,
)
from tests.support.system import UnreadyBridge
from tests.unit.test_broker_rules import HELLO, LONG_REASON, MEBIBYTE
from tools.brokers.process import HOST, free_port

# ---- the worker


ATTACKS = [
    b"\x90" + variable_byte_integer(60_000_000) + bytes(8 * MEBIBYTE),
    HELLO[5] * 1_000,
    b"\xb0" + variable_byte_integer(60_000_000) + bytes(8 * MEBIBYTE),
    b"\xe0" + variable_byte_integer(60_000_000) + bytes(8 * MEBIBYTE),
    packet_of(0xE0, b"\x8b" + variable_byte_integer(len(LONG_REASON)) + LONG_REASON),
    b"\xd0\x00" * 100_000,
    b"\xf0\x00",
]
ROUNDS = 2


def most_memory_bytes(pid):
    """Return the most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_a_broker_that_misbehaves_on_each_connection_costs_few_lines_no_memory_and_no_session(tmp_path):
    """And once it behaves messages flow: no filter is left out for what it did."""
    with ScriptedBroker() as broker:
        bridge = FailingBridge(
            tmp_path / "bridge", broker.port, f"{HOST}:{free_port()}", "a/#:records,b:records",
            constants="app.mqtt.thread:BACK_OFF_SECONDS=0.01,0.01",
        )  # fmt: skip
        bridge.ready = lambda: UnreadyBridge.ready(bridge)
        with bridge:
            wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a bridge that is ready")
            before_bytes = most_memory_bytes(bridge.pid)
            broker.script.session_present = True
            broker.script.refusals.extend([HELLO[5] + attack for attack in ATTACKS] * ROUNDS)
            broker.close_connection()
            attacked = 1 + len(ATTACKS) * ROUNDS
            wait_until(lambda: len(broker.received(CONNECT)) > attacked, "a connection after the attacks")
            wait_until(lambda: bridge.get("/health/ready")[0] == 200, "a bridge that is ready")
            broker.publish("a/b", b"flows", 1, 7)
            broker.wait_for(PUBACK)
            assert most_memory_bytes(bridge.pid) - before_bytes < 24 * MEBIBYTE
            assert bridge.total("connector_mqtt_sessions_lost_total") <= 1
            assert bridge.total("connector_mqtt_faults_total") == (len(ATTACKS) - 1) * ROUNDS
            assert "which no broker may send" in bridge.status_page()["mqtt"]["last_fault"]
        lines = bridge.log_path.read_text(encoding="utf-8").splitlines()
        assert len([line for line in lines if "sent what MQTT does not allow" in line]) == len(ATTACKS) - 1
        told = [line for line in lines if " WARNING " in line or " ERROR " in line]
        assert len(told) < 2 * len(ATTACKS), "\n".join(told)
        assert max(map(len, told)) < 600
        assert not [line for line in told if "left out" in line or "client id" in line]
