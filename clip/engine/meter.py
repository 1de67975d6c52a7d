"""What a training costs: seconds without its validations, optimiser steps, memory."""

import resource
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class Meter(Callback):
    """Measures a training over all its interruptions, up to the checkpoints it went on from."""

    def __init__(self):
        self.earlier: float = 0.0
        self.since: float | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to count."""
        self.since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the validation out."""
        self.earlier, self.since = self._seconds(), None

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on."""
        self.since = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop."""
        self.earlier, self.since = self._seconds(), None

    def state_dict(self) -> dict[str, float]:
        """Keep the seconds so far in the checkpoint from which a run may go on."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take over the seconds before the interruption."""
        self.earlier = state["seconds"]

    def _seconds(self) -> float:
        return self.earlier + (time.perf_counter() - self.since if self.since else 0.0)

    def measured(self, steps: int) -> dict[str, float]:
        """Sum up after a training.

        Args:
            steps: optimiser steps of the whole training.

        Returns:
            "seconds_train", "steps", "seconds_per_step" and "peak_memory_mb": the GPU's if the
            training used one, else that of the process.
        """
        on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated()
        peak = on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
        seconds = self._seconds()
        return {"seconds_train": seconds, "steps": steps, "seconds_per_step": seconds / steps,
                "peak_memory_mb": peak / 2**20}  # fmt: skip
