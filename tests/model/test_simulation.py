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
    simulate(tmp_path, [*FIXED_SEEDS, *(random.SystemRandom().randrange(10**6) for _ in range(5))])


def test_what_gives_way_as_its_route_takes_too_much_of_the_table_is_never_in_flight_and_all_else_is_safe(tmp_path):
    """P1, P2, P3, P6 and P8: the same, in which routes have limits of their own."""
    numbers = [*range(1, 7), *(random.SystemRandom().randrange(10**6) for _ in range(4))]
    simulate(tmp_path, [f"limited-{number}" for number in numbers])


def test_what_gives_way_in_a_full_table_is_never_in_flight_and_all_else_is_safe(tmp_path):
    """P1, P2, P3, P6 and P8: the same with `drop_oldest`, where others have a turn after each message."""
    numbers = [*range(1, 7), *(random.SystemRandom().randrange(10**6) for _ in range(4))]
    simulate(tmp_path, [f"small-{number}" for number in numbers])


def simulate(directory, seeds):
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.model.simulation", directory, *map(str, seeds)],
        env={**SETTINGS, "PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert result.stdout.count("'lost': 0") == len(seeds)
