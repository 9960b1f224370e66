"""A worker whose MQTT broker has several addresses, of which some are silent."""

from __future__ import annotations

import time

from tests.support.failing_worker import FailingBridge
from tests.support.system import UnreadyBridge
from tools.brokers.process import HOST, free_port


def test_with_a_resolver_that_does_not_answer_the_worker_lives_and_stops_at_once(tmp_path):
    """Liveness is about our own threads: it drains, and Kubernetes must not end it for the network's silence."""
    bridge = FailingBridge(
        tmp_path, free_port(), f"{HOST}:{free_port()}", "a:records", function="app.mqtt.opening:look_up", act="hang",
        constants="app.pages.status:STALLED_SECONDS=4", mqtt_broker_url="localhost",
    )  # fmt: skip
    tmp_path.mkdir(exist_ok=True)
    bridge.begin()
    bridge.ready = lambda: UnreadyBridge.ready(bridge)
    with bridge:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            assert bridge.get("/health/live")[0] == 200
            time.sleep(0.1)
        began = time.monotonic()
        bridge.stop()
        assert time.monotonic() - began < 10, "the resolver takes as long as it likes"
        assert bridge.exit_status == 0
