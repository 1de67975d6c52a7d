"""Predictions on disk: what is read is what was written, without an object for every number."""

import tracemalloc

import pytest
import torch

from clip.evaluation import StatePredictions
from clip.modules.objectives import TASKS
from tests.fabricated import predict


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_read_as_they_were_written(task, tmp_path):
    made = predict(task, "test", 1.0, 0, 500)
    made.save(tmp_path / "made.arrow")
    StatePredictions.load(tmp_path / "made.arrow", task)  # imports what arrow imports
    tracemalloc.start()
    found = StatePredictions.load(tmp_path / "made.arrow", task)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "made.arrow").stat().st_size / 4
    for name in ("logits", "labels"):
        before, after = getattr(made, name), getattr(found, name)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    assert found.rows.tolist() == made.rows.tolist()
    assert (found.num_rows, found.identity) == (made.num_rows, made.identity)
