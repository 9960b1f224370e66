"""The named places at which the worker kills itself are where they say; what a crash there does is in `faults/`."""

from __future__ import annotations

from tests.support.app_settings import app_settings

with app_settings():
    from app.crash_points import PLACES


def test_each_crash_point_is_at_a_method_that_there_is():
    """They are named by a text, which does not follow when a method gets another name."""
    assert PLACES
    assert [name for name, place in PLACES.items() if not callable(getattr(place.owner, place.method, None))] == []
