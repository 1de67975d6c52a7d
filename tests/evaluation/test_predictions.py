"""Predictions on disk: what is read is what was written, without an object for every number."""

import tracemalloc

import pytest
import torch

from clip.evaluation.predictions import CasePredictions
from clip.modules.objectives import TASKS
from clip.utils.errors import UserError
from tests.fabricated import predict


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task])
def test_predictions_are_read_as_they_were_written(task, tmp_path):
    made = predict(task, "test", 1.0, 0, 500)
    made.save(tmp_path / "made.arrow")
    CasePredictions.load(tmp_path / "made.arrow", task, "test")  # imports what arrow imports
    tracemalloc.start()
    found = CasePredictions.load(tmp_path / "made.arrow", task, "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "made.arrow").stat().st_size / 4
    for name in ("logits", "labels"):
        before, after = getattr(made, name), getattr(found, name)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    assert found.rows.tolist() == made.rows.tolist()
    assert (found.num_rows, found.model_config) == (made.num_rows, made.model_config)


def test_predictions_of_another_split_or_task_are_refused(tmp_path):
    """Else the validation samples would be scored under the test split's masks, and its name."""
    predict("mmimdb", "val", 1.0, 0, 5).save(tmp_path / "val.arrow")
    with pytest.raises(UserError, match="split=val"):
        CasePredictions.load(tmp_path / "val.arrow", "mmimdb", "test")
    with pytest.raises(UserError, match="task=mmimdb"):
        CasePredictions.load(tmp_path / "val.arrow", "food101", "val")
