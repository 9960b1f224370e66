"""The inside of the bridge under every interleaving that chance finds; see `simulation.py`."""

import os
import random
import subprocess
import sys
from pathlib import Path

FIXED_SEEDS = range(1, 21)
SETTINGS = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "simulation",
    "KAFKA_BROKER": "localhost",
    "TOPIC_LIST": "one:one,two:two",
    "LOG_LVL": "panic",
}


def test_no_interleaving_of_outages_refusals_and_crashes_loses_reorders_or_strands_a_message(tmp_path):
    """P1, P2, P3, P5 and P8: over 30,000 messages, a hundred crashes, outages and refused records."""
    seeds = [*FIXED_SEEDS, *(random.SystemRandom().randrange(10**6) for _ in range(5))]
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.model.simulation", tmp_path, *map(str, seeds)],
        env={**SETTINGS, "PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert result.stdout.count("'lost': 0") == len(seeds)
