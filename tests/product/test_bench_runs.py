"""Small runs of what is measured, between real brokers: the figures are of no interest, but there must be some."""

from __future__ import annotations

import pytest

from bench import profile, scale
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


def test_every_stage_of_the_profile_is_a_place_in_the_worker(monkeypatch, stage):
    """A worker of which a stage's method has another name does not start."""
    monkeypatch.setattr(profile, "MESSAGES", MESSAGES)
    measured = profile.measure(stage, qos=1)
    passed = {name for name, microseconds in measured.items() if microseconds > 0}
    assert {name.partition(":")[0] for name in passed} >= {"receive", "route", "produce", "confirm", "acknowledge"}
