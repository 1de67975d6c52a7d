"""Samples with a modality missing in the data are scored in that case in every cell of a sweep."""

import numpy as np
import torch

from clip.evaluation.predictions import CasePredictions, fix_observed, score_grid
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import resolve_task


def test_a_sample_without_a_text_is_scored_without_it_in_every_cell(tmp_path):
    """Complete: always right; without text: always wrong; sample 0 never had a text."""
    right = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    logits = fix_observed(torch.stack([right, -right, right]), torch.tensor([1, 0]))
    assert torch.equal(logits[:, 0], -right[0].expand(3, 2))
    assert torch.equal(logits[:, 1], torch.stack([right[1], -right[1], right[1]]))
    metadata = {"class_names": ["no", "yes"], "task_type": "binary"}
    config = {"task": "manifest"} | metadata
    made = CasePredictions(logits, torch.tensor([1, 0]), np.arange(2), 2, "test", config, {"missing_text": [0]})
    made.save(tmp_path / "p.arrow")
    found = CasePredictions.load(tmp_path / "p.arrow", "manifest", "test")
    assert found.observed.tolist() == [1, 0]

    masks = {
        (kind, ratio, 7): draw_mask(
            "toy", "test", found.observed, MissingConfig({"test": kind}, {"test": ratio}, seed=7)
        )
        for kind in ("text", "image")
        for ratio in (0.0, 1.0)
    }
    scores = score_grid(found, resolve_task("manifest", metadata), masks)
    assert scores["accuracy"].tolist() == [0.5, 0.0, 0.5, 0.5]
