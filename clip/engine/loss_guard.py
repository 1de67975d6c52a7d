"""Losses that are no numbers: the samples they are of, and whether the run stops or goes on."""

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from clip.utils.errors import UserError
from clip.utils.files import write_text

ACTIONS = ("stop", "skip")
FILE = "nonfinite.json"


class LossGuard:
    """Watches the losses of the micro-batches of an optimiser step.

    To stop, it looks at them once a step, before the step is made: a look waits for the GPU, and
    the log waits for each step's loss anyway. To skip, it must look at each micro-batch.

    Args:
        action: one of ``ACTIONS``.

    Attributes:
        folder: where ``nonfinite.json`` goes, in the first process; None writes nothing.
        found: what was recorded, one entry a micro-batch.
    """

    def __init__(self, action: str = "stop"):
        self.action = action
        self.folder: Path | None = None
        self.found: list[dict[str, Any]] = []
        self._pending: list[tuple[Tensor, Tensor]] = []

    def accepts(self, loss: Tensor, batch: dict[str, Tensor]) -> bool:
        """Take note of a micro-batch, and say whether it takes part in the step."""
        if self.action == "skip" and bool(loss.isfinite()):
            return True
        self._pending.append((loss.detach(), batch["sample_id"]))
        return self.action != "skip"

    def check(self, module: pl.LightningModule) -> None:
        """Record what was wrong in a step that is about to be made; all processes must call it.

        Raises:
            UserError: something was, and that is to end the run.
        """
        pending, self._pending = self._pending, []
        wrong = bool(pending) and not bool(torch.stack([loss for loss, _ in pending]).isfinite().all())
        trainer = module.trainer
        if not trainer.strategy.reduce_boolean_decision(wrong, all=False):
            return
        entries = [self._entry(trainer, loss, ids) for loss, ids in pending if not loss.isfinite()]
        if trainer.world_size > 1:
            several: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(several, entries)
            entries = [entry for one in several for entry in one]
        self.found += entries
        place = self._write(trainer)
        if self.action == "stop":
            raise UserError(
                f"train/loss is {entries[0]['loss']} in epoch {trainer.current_epoch}, step "
                f"{trainer.global_step}: the run diverged or a sample is faulty; {place}lower "
                f"learning_rate={module.optim.learning_rate}, or give precision=32, or "
                "nonfinite_loss=skip"
            )

    def _entry(self, trainer: pl.Trainer, loss: Tensor, ids: Tensor) -> dict[str, Any]:
        samples = ids.tolist()
        about = trainer.datamodule.describe_samples("train", samples)
        return {"epoch": trainer.current_epoch, "step": trainer.global_step,
                "process": trainer.global_rank, "loss": str(float(loss)),
                "sample_ids": samples} | about  # fmt: skip

    def _write(self, trainer: pl.Trainer) -> str:
        folder = trainer.strategy.broadcast(self.folder)  # the first process alone knows it
        if not folder:
            return ""
        if trainer.is_global_zero:
            batches = ",\n".join(map(json.dumps, self.found))
            write_text(folder / FILE, f"[\n{batches}\n]\n")
        return f"the samples of that batch are in {folder / FILE}; "
