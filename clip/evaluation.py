"""Predictions per modality state, and any grid of test cases assembled from them.

A test sample can only be complete, without text or without image. Three logits a sample therefore
answer every missing rate and type, at the cost of two passes over the test set.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clip.missing import CASES, table_hash
from clip.modules.model import PromptedCLIP, case_vector
from clip.modules.objectives import Task


@dataclass(frozen=True)
class StatePredictions:
    """Logits of every sample in each of its three states.

    Attributes:
        logits: (3, N, C), in the order of ``missing.CASES``.
        labels: (N,) or (N, C).
        rows: (N,), each sample's row of the arrow file, the key into missing tables.
    """

    logits: Tensor
    labels: Tensor
    rows: np.ndarray

    def under(self, table: np.ndarray) -> Tensor:
        """Pick each sample's logits (N, C) by a missing table of (rows,) states."""
        states = torch.from_numpy(table[self.rows].astype(np.int64))
        return self.logits[states, torch.arange(len(states))]


@torch.inference_mode()
def predict_states(
    model: PromptedCLIP,
    loader: DataLoader,
    prepare: Callable[[Tensor], Tensor],
    device: str,
) -> StatePredictions:
    """Run a complete test set through the model in all three states.

    Args:
        model: put on the device here.
        loader: unshuffled batches of an ``ArrowDataset`` in which nothing is missing.
        prepare: pixels (B, 3, H, W) uint8, on the device -> what the image tower takes.
        device: of torch, such as "cpu" or "cuda".
    """
    model.to(device).eval()
    logits, labels, samples = [], [], []
    for batch in tqdm(loader, desc="test samples in three states", unit="batch"):
        image, tokens = prepare(batch["image"].to(device)), batch["tokens"].to(device)
        states = [case_vector(case, len(image), like=image) for case in range(len(CASES))]
        logits.append(torch.stack([model(image, tokens, state).float() for state in states]).cpu())
        labels.append(batch["label"])
        samples.append(batch["sample_id"])
    rows = loader.dataset.rows[torch.cat(samples).numpy()]
    return StatePredictions(torch.cat(logits, dim=1), torch.cat(labels), rows)


def sweep(
    predictions: StatePredictions,
    task: Task,
    draw: Callable[[str, float], np.ndarray],
    types: Iterable[str],
    ratios: Iterable[float],
) -> pd.DataFrame:
    """Score a grid of missing types and rates.

    Args:
        predictions: of ``predict_states``.
        task: its metrics are the columns.
        draw: (type, ratio) -> missing table.
        types: "text", "image", "both".
        ratios: from 0 to 1.

    Returns:
        One row a cell: missing_type, missing_ratio, the metrics, what a predictor that ignores
        its input would reach of the headline metric, the SHA-256 of the table.
    """
    floor = task.floor(predictions.labels)[task.headline]
    cells = [(kind, float(ratio)) for kind in types for ratio in ratios]
    tables = [draw(*cell) for cell in cells]
    return pd.DataFrame(
        {
            "missing_type": kind,
            "missing_ratio": ratio,
            **task.score(predictions.under(table), predictions.labels),
            "input_ignored": floor,
            "missing_table": table_hash(table),
        }
        for (kind, ratio), table in zip(cells, tables, strict=True)
    )
