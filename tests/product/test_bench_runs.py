"""Small runs of what is measured, between real brokers: the figures are of no interest, but there must be some."""

from __future__ import annotations

import pytest

from bench import killed, payloads, profile, scale
from bench.bridges import Connector
from bench.stage import Stage

MESSAGES = 3_000


@pytest.fixture(scope="module")
def stage(kafka, tmp_path_factory):
    return Stage(kafka, tmp_path_factory.mktemp("bench"))


def test_two_workers_are_measured_and_what_arrived_is_counted(monkeypatch, stage):
    monkeypatch.setattr(scale, "MESSAGES", MESSAGES)
    measured = scale.measure(stage, workers=2)
    assert (measured.case, measured.lost, measured.twice) == ("2 workers", 0, 0)
    assert measured.rate > 0
    assert measured.cpu_us > 0


def test_a_program_is_killed_again_and_again_and_what_arrived_is_counted(monkeypatch, stage):
    for name, value in {"KILLS": 2, "WORKS_SECONDS": 1.0, "QUIET_SECONDS": 3.0}.items():
        monkeypatch.setattr(killed, name, value)
    measured = killed.measure(stage, Connector)
    assert measured.lost == 0
    assert measured.published >= 2 * killed.RATE, "for two seconds at least"
    assert 0 < measured.rate <= 1.1 * killed.RATE
    assert measured.away_seconds > 0


def test_large_payloads_cross_and_their_bytes_are_counted(monkeypatch, stage):
    monkeypatch.setitem(payloads.CASES, "1 MiB", (1 << 20, 10))
    measured = payloads.measure(stage, Connector, "1 MiB")
    assert (measured.lost, measured.twice) == (0, 0)
    assert measured.mb_per_second > 0


def test_every_stage_of_the_profile_is_a_place_in_the_worker(monkeypatch, stage):
    """A worker of which a stage's method has another name does not start."""
    monkeypatch.setattr(profile, "MESSAGES", MESSAGES)
    measured = profile.measure(stage, qos=1)
    passed = {name for name, microseconds in measured.items() if microseconds > 0}
    assert {name.partition(":")[0] for name in passed} >= {"receive", "route", "produce", "confirm", "acknowledge"}
