"""The seconds of a training: over its interruptions, without its validations."""

import pytest

from clip.engine.meter import Meter


def test_seconds_go_on_after_an_interruption_and_leave_validations_out(monkeypatch):
    now = 0.0
    monkeypatch.setattr("clip.engine.meter.time.perf_counter", lambda: now)
    first = Meter()
    now = 1.0
    first.on_train_start(None, None)
    now = 5.0
    kept = first.state_dict()

    second = Meter()
    second.load_state_dict(kept)
    now = 100.0
    second.on_train_start(None, None)
    now = 103.0
    second.on_validation_start(None, None)
    now = 200.0
    second.on_validation_end(None, None)
    now = 202.0
    second.on_train_end(None, None)
    now = 300.0
    found = second.measured(steps=3)
    assert found["seconds_train"] == pytest.approx(4 + 3 + 2)
    assert found["seconds_per_step"] == pytest.approx(3)
