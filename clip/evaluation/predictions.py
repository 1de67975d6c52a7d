"""Predictions per modality state, and any grid of test cases assembled from them.

A test sample can only be complete, without text or without image. Three logits a sample therefore
answer every missing rate and type, at the cost of two passes over the test set.
"""

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clip.datasets.arrow_dataset import column_to_numpy
from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.missing.masks import mask_hash
from clip.modules.objectives import Task
from clip.modules.prompted_model import PromptedModel, case_vector
from clip.utils.errors import UserError
from clip.utils.files import atomic_write


@dataclass(frozen=True)
class CasePredictions:
    """Logits of every sample in each of its three states.

    Attributes:
        logits: (3, N, C), in the order of ``missing.CASES``.
        labels: (N,) or (N, C).
        rows: (N,), each sample's row of the arrow file, the key into missing tables.
        num_rows: of the arrow file.
        split: whose samples these are, as missing tables name it.
        model_config: of the model, as its checkpoints record it; it names the task.
        lacking: state -> rows that are in it whatever is simulated, as no text or image of theirs
            ever existed. The logits of their samples are those of that state three times.
    """

    logits: Tensor
    labels: Tensor
    rows: np.ndarray
    num_rows: int
    split: str
    model_config: dict[str, Any]
    lacking: dict[str, list[int]] = field(default_factory=dict)

    @property
    def observed(self) -> np.ndarray:
        """The rows' states before anything is simulated, (rows,) uint8."""
        states = np.full(self.num_rows, COMPLETE, dtype=np.uint8)
        for name, rows in self.lacking.items():
            states[rows] = CASES.index(name)
        return states

    def select(self, table: np.ndarray) -> Tensor:
        """Pick each sample's logits (N, C) by a missing table of (rows,) states."""
        states = torch.from_numpy(table[self.rows].astype(np.int64))
        return self.logits[states, torch.arange(len(states))]

    def save(self, path: Path) -> None:
        """Write an arrow file, one row a sample and state: id, row, state, logits, label."""
        states, samples = self.logits.shape[:2]
        table = pa.table(
            {
                "id": np.tile(np.arange(samples), states),
                "row": np.tile(self.rows, states),
                "state": np.repeat(np.arange(states), samples),
                "logits": list(self.logits.flatten(0, 1).numpy()),
                "label": list(self.labels.numpy()) * states,
            }
        )
        about = {"model_config": self.model_config, "num_rows": self.num_rows, "split": self.split,
                 "states": CASES, "lacking": self.lacking}  # fmt: skip
        table = table.replace_schema_metadata({"predictions": json.dumps(about)})
        with atomic_write(path) as partial, pa.ipc.new_file(partial, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path, task: str, split: str) -> "CasePredictions":
        """Read what ``save`` wrote.

        Raises:
            UserError: no such file, or it is of another task or split.
        """
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            about = json.loads(table.schema.metadata[b"predictions"])
            logits, labels = (torch.tensor(column_to_numpy(table[key])) for key in ("logits", "label"))
            rows = table["row"].to_numpy()
        except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError) as error:
            raise UserError(f"predictions={path} is no predictions.arrow of a sweep ({error})") from None
        asked = {"task": task, "split": split}
        for key, theirs in (("task", about["model_config"]["task"]), ("split", about.get("split"))):
            if theirs != asked[key]:
                raise UserError(f"predictions={path} are of the {key} {theirs}, not {asked[key]}")
        size = len(rows) // len(CASES)
        labels = labels[:size].float() if labels.is_floating_point() else labels[:size]
        return cls(logits.unflatten(0, (len(CASES), size)), labels, rows[:size],
                   about["num_rows"], split, about["model_config"],
                   about.get("lacking", {}))  # fmt: skip


@torch.inference_mode()
def predict_cases(
    model: PromptedModel,
    loader: DataLoader,
    normalize: Callable[[Tensor], Tensor],
    device: str,
    dtype: torch.dtype,
    split: str,
    model_config: dict[str, Any],
) -> CasePredictions:
    """Run a complete split through the model in all three states.

    Args:
        model: put on the device here.
        loader: unshuffled batches of an ``ArrowDataset`` in which nothing is missing.
        normalize: pixels (B, 3, H, W) uint8, on the device -> what the image tower takes.
        device: of torch, such as "cpu" or "cuda".
        dtype: in which a GPU multiplies, as in a test; float32 for all else.
        split: of the loader.
        model_config: of the model.
    """
    model.to(device).eval()
    logits, labels, samples = [], [], []
    for batch in tqdm(loader, desc="samples in three states", unit="batch"):
        here = move_data_to_device(batch, device)
        image, tokens, present = normalize(here["image"]), here["tokens"], here["present"]
        states = [case_vector(case, len(image), like=image) for case in range(len(CASES))]
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            made = [model(image, tokens, state, model.reindex(present, tokens, state))
                    for state in states]  # fmt: skip
        logits.append(torch.stack(made).float().cpu())
        labels.append(batch["label"])
        samples.append(batch["sample_id"])
    dataset = loader.dataset
    rows = dataset.rows[torch.cat(samples).numpy()]
    lacking = {CASES[state]: np.flatnonzero(dataset.observed == state).tolist()
               for state in (MISSING_TEXT, MISSING_IMAGE) if state in dataset.observed}  # fmt: skip
    possible = fix_observed(torch.cat(logits, dim=1), torch.from_numpy(dataset.observed[rows]).long())
    return CasePredictions(possible, torch.cat(labels), rows, dataset.num_rows, split, model_config, lacking)


def fix_observed(logits: Tensor, observed: Tensor) -> Tensor:
    """Leave samples that really lack something in their one state: its logits three times.

    Args:
        logits: (3, N, C), in the order of ``missing.CASES``.
        observed: (N,), states before anything is simulated.
    """
    own = logits[observed, torch.arange(len(observed))]
    return torch.where((observed == COMPLETE)[:, None], logits, own)


def sweep(
    predictions: CasePredictions,
    task: Task,
    draw: Callable[[str, float, int], np.ndarray],
    types: Iterable[str],
    ratios: Iterable[float],
    seeds: Iterable[int],
) -> pd.DataFrame:
    """Score a grid of missing types, rates and seeds of the tables.

    Args:
        predictions: of ``predict_cases``.
        task: its metrics are the columns.
        draw: (type, ratio, seed) -> missing table.
        types: "text", "image", "both".
        ratios: from 0 to 1.
        seeds: of the tables.

    Returns:
        One row a cell: missing_type, missing_ratio, missing_seed, the metrics, "constant_baseline":
        what a constant answer reaches of the headline metric, the SHA-256 of the table.
    """
    floor = task.constant_baseline(predictions.labels)[task.headline]
    cells = [(kind, float(ratio), seed) for kind, ratio, seed in
             itertools.product(types, ratios, seeds)]  # fmt: skip
    tables = [draw(*cell) for cell in cells]
    return pd.DataFrame(
        {
            "missing_type": kind,
            "missing_ratio": ratio,
            "missing_seed": seed,
            **task.score(predictions.select(table), predictions.labels),
            "constant_baseline": floor,
            "missing_table": mask_hash(table),
        }
        for (kind, ratio, seed), table in zip(cells, tables, strict=True)
    )
