"""Predict every sample in every missing case, and score any missing type and rate from these predictions.

A test sample is complete, missing its text or missing its image. Its logits in these three cases are therefore
sufficient to score every missing type and rate without running the model again.
"""

import json
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
from clip.missing import CASES, COMPLETE
from clip.missing.masks import mask_hash
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.objectives import Task
from clip.utils.errors import UserError
from clip.utils.files import atomic_write

METADATA = ("num_rows", "split", "model_config", "missing_rows")  # fields stored in the file's metadata


@dataclass(frozen=True)
class CasePredictions:
    """Logits of every sample of a split in each missing case.

    A sample that is incomplete in the data itself has the logits of its own case three times.
    """

    logits: Tensor  # (3, N, C), in the order of ``CASES``
    labels: Tensor  # (N,) or (N, C)
    rows: np.ndarray  # row of the arrow file that each sample comes from, (N,); it indexes a mask
    num_rows: int  # of the arrow file
    split: str
    model_config: dict[str, Any]  # what the model's checkpoints record; it names the task
    missing_rows: dict[str, list[int]] = field(default_factory=dict)  # incomplete in the data itself, by missing case

    @property
    def observed(self) -> np.ndarray:
        """Missing case of each row in the data itself, (num_rows,) uint8."""
        cases = np.full(self.num_rows, COMPLETE, dtype=np.uint8)
        for name, rows in self.missing_rows.items():
            cases[rows] = CASES.index(name)
        return cases

    def select(self, mask: np.ndarray) -> Tensor:
        """Return the logits (N, C) of the samples in the missing cases of a mask, (num_rows,)."""
        cases = torch.from_numpy(mask[self.rows].astype(np.int64))
        return self.logits[cases, torch.arange(len(cases))]

    def save(self, path: Path) -> None:
        """Write an arrow file with one row per sample and case: id, row, case, logits, label."""
        cases, samples = self.logits.shape[:2]
        columns = {
            "id": np.tile(np.arange(samples), cases),
            "row": np.tile(self.rows, cases),
            "case": np.repeat(np.arange(cases), samples),
            "logits": list(self.logits.flatten(0, 1).numpy()),
            "label": list(self.labels.numpy()) * cases,
        }
        metadata = {key: getattr(self, key) for key in METADATA} | {"cases": CASES}
        table = pa.table(columns).replace_schema_metadata({"predictions": json.dumps(metadata)})
        with atomic_write(path) as partial, pa.ipc.new_file(partial, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path, task: str, split: str) -> "CasePredictions":
        """Read a file written by ``save``, which must be of this task and split."""
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            metadata = json.loads(table.schema.metadata[b"predictions"])
            logits, labels = (torch.tensor(column_to_numpy(table[key])) for key in ("logits", "label"))
            rows = table["row"].to_numpy()
        except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError) as error:
            raise UserError(f"{path} is not a file of predictions ({error}); make it with run.py sweep") from None
        found = metadata["model_config"]["task"], metadata["split"]
        if found != (task, split):
            raise UserError("{} is of task={} split={}, not {} {}; give another".format(path, *found, task, split))
        size = len(rows) // len(CASES)
        labels = labels[:size].float() if labels.is_floating_point() else labels[:size]
        fields = {key: metadata[key] for key in METADATA}
        return cls(logits.unflatten(0, (len(CASES), size)), labels, rows[:size], **fields)


@torch.inference_mode()
def predict_cases(
    module: MissingAwarePromptModule, loader: DataLoader, device: str, dtype: torch.dtype, split: str
) -> CasePredictions:
    """Run every sample of a split through the module's model in all missing cases.

    The loader gives unshuffled batches of an ``ArrowDataset`` without simulated missing cases. An autocast ``dtype`` of
    float32 turns autocast off.
    """
    model = module.model.to(device).eval()
    logits, labels, samples = [], [], []
    for batch in tqdm(loader, desc="samples in three cases", unit="batch"):
        inputs = move_data_to_device(batch, device)
        image, tokens, present = module.normalize(inputs["image"]), inputs["tokens"], inputs["present"]
        cases = [torch.full((len(image),), case, device=device) for case in range(len(CASES))]
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            out = [model(image, tokens, case, model.reindex(present, tokens, case)) for case in cases]
        logits.append(torch.stack(out).float().cpu())
        labels.append(batch["label"])
        samples.append(batch["sample_id"])
    dataset = loader.dataset
    rows = dataset.rows[torch.cat(samples).numpy()]
    incomplete = np.setdiff1d(dataset.observed, [COMPLETE])
    missing_rows = {CASES[case]: np.flatnonzero(dataset.observed == case).tolist() for case in incomplete}
    possible = fix_observed(torch.cat(logits, dim=1), torch.from_numpy(dataset.observed[rows]).long())
    return CasePredictions(
        possible, torch.cat(labels), rows, dataset.num_rows, split, module.model_config, missing_rows
    )


def fix_observed(logits: Tensor, observed: Tensor) -> Tensor:
    """Replace logits (3, N, C) of samples with a modality missing in the data, ``observed`` (N,), by that case's."""
    own = logits[observed, torch.arange(len(observed))]
    return torch.where((observed == COMPLETE)[:, None], logits, own)


def score_grid(
    predictions: CasePredictions, task: Task, masks: dict[tuple[str, float, int], np.ndarray], metric: str | None = None
) -> pd.DataFrame:
    """Score test cases: (missing type, missing rate, mask seed) -> mask (num_rows,).

    Returns:
        One row per test case: missing_type, missing_ratio, missing_seed, the task's metrics, constant_baseline
        (``metric`` of the best constant prediction, by default the task's headline), incomplete (share of the samples
        that are not complete, in the data or in the mask) and missing_table (SHA-256 of the mask).
    """
    baseline = task.constant_baseline(predictions.labels)[metric or task.headline]
    rows = []
    for (kind, ratio, seed), mask in masks.items():
        scores = task.score(predictions.select(mask), predictions.labels)
        case = {"missing_type": kind, "missing_ratio": float(ratio), "missing_seed": seed}
        incomplete = float(np.mean(mask[predictions.rows] != COMPLETE))
        last = {"constant_baseline": baseline, "incomplete": incomplete, "missing_table": mask_hash(mask)}
        rows.append(case | scores | last)
    return pd.DataFrame(rows)
