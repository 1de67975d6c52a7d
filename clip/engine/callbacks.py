"""Callbacks that stop a training run gracefully for exact resumption and measure its time and memory."""

import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from clip.datamodules.datamodule import STOP_SIGNALS
from clip.engine.checkpoints import CHECKPOINT_NAME, CHECKPOINTS, LAST
from clip.utils.files import display_path

MAX_SIGINTS = 3
SIGNAL_EXIT = 128  # exit code of a process ended by a signal: this plus its number


class ReportedStop(Callback):
    """Report a signal that Lightning handles, and exit with 143 on SIGTERM, where Lightning would exit with 0."""

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Set the exit code; Lightning cleans up and raises the exception again."""
        if isinstance(exception, SIGTERMException | KeyboardInterrupt):
            print("error: interrupted", file=sys.stderr)
        if isinstance(exception, SIGTERMException):
            exception.code = SIGNAL_EXIT + signal.SIGTERM


class GracefulStop(Callback):
    """On SIGTERM, Ctrl-C and other signals, save a mid-epoch checkpoint between two optimiser steps and exit.

    The signals are ``STOP_SIGNALS``, without those that the process ignores, as under nohup. The third Ctrl-C exits
    at once.

    Args:
        folder: folder of the run.
        per_gpu_batchsize: samples of one micro-batch, on which the position within an epoch depends.
        max_steps: optimiser steps after which the run ends, validates and can be resumed; None for no limit.
    """

    def __init__(self, folder: Path, per_gpu_batchsize: int, max_steps: int | None = None):
        self.folder, self.per_gpu_batchsize, self.max_steps = folder, per_gpu_batchsize, max_steps
        self.signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self.received: int | None = None
        self.sigint_count = 0
        self.restored: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Install the signal handlers in place of Lightning's and restore the training metrics."""
        for number in self.signals:
            signal.signal(number, self._on_signal)
        if self.restored:
            module.load_metric_states(self.restored[trainer.global_rank])

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore the default signal handlers."""
        for number in self.signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # torchrun forwards signals that the terminal or SLURM also sends to all processes: one may arrive twice.
        self.sigint_count += number == signal.SIGINT
        if self.sigint_count == MAX_SIGINTS:
            raise SystemExit(SIGNAL_EXIT + number)
        self.received = self.received or number

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Save and exit if any process received a signal and no gradient accumulation is in progress."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        # One process may receive the signal earlier than another; all must stop at the same step.
        if not trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            return
        if batch_idx:  # at 0, the checkpoint of the previous epoch already has this state
            name = CHECKPOINT_NAME.format(epoch=trainer.current_epoch, step=trainer.global_step)
            trainer.save_checkpoint(self.folder / CHECKPOINTS / f"{name}-{LAST}.pt", weights_only=False)
        number = self.received or signal.SIGTERM
        where = display_path(self.folder)
        hint = f"; the same command with resume_from={where} continues the run" if trainer.global_step else ""
        print(f"\nstopped by {signal.Signals(number).name} after step {trainer.global_step}{hint}", flush=True)
        raise SystemExit(SIGNAL_EXIT + number)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """End the run after ``max_steps``.

        ``Trainer(max_steps=...)`` is not used: with it, Lightning treats a checkpoint at an epoch's end as mid-epoch.
        """
        if self.max_steps and trainer.global_step >= self.max_steps:
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the position within the epoch and the training metrics of all processes."""
        loops = checkpoint["loops"]["fit_loop"]
        done = loops["epoch_loop.batch_progress"]["current"]["processed"]
        mid_epoch = done < trainer.num_training_batches
        states = [module.metric_states() if mid_epoch else {}]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        checkpoint["position"] = {
            "batches": done if mid_epoch else 0,
            "per_gpu_batchsize": self.per_gpu_batchsize,
            "processes": trainer.world_size,
            "metrics": states,
        }
        if mid_epoch:
            at_validation = done % trainer.val_check_batch == 0
            set_mid_epoch(loops, trainer.current_epoch, done, trainer.global_step - at_validation)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set the position of the data module and keep the metrics until training starts."""
        position = checkpoint["position"]
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        trainer.datamodule.resume_at(epoch, position["batches"])
        self.restored = position["metrics"] if position["batches"] else []


def set_mid_epoch(loops: dict[str, Any], epoch: int, batches: int, logged_steps: int) -> None:
    """Set the saved state of Lightning's loops to ``batches`` finished and none started in this epoch.

    Lightning saves the progress including the prefetched batch: it counts as started, and if it is the last of the
    epoch, the epoch counts as finished.

    Args:
        loops: state of the fit loop in a checkpoint, changed in place.
        epoch: index of the unfinished epoch.
        batches: finished micro-batches of that epoch.
        logged_steps: Lightning's step counter for loggers, which it increments on resume after a validation.
    """
    for scope in ("current", "total"):
        progress = loops["epoch_loop.batch_progress"][scope]
        progress.update(ready=progress["processed"], started=progress["processed"], completed=progress["processed"])
        loops["epoch_progress"][scope].update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = logged_steps


class LearningRates(Callback):
    """Log the learning rate of each optimiser step, and that of the classifier if ``lr_mult`` changes it."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the rates of the step that follows."""
        rates = {}
        for group in optimizer.param_groups:
            own = module.optim.lr_mult != 1 and "classifier." in group["names"][0]
            rates["lr_classifier" if own else "lr"] = group["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)


class Timer(Callback):
    """Measure peak memory and the time of training and of validation across resumptions of a run."""

    def __init__(self):
        self.seconds = {"train": 0.0, "validation": 0.0}
        self.phase, self.since = "", 0.0

    def _start(self, phase: str) -> None:
        now = time.perf_counter()
        if self.phase:
            self.seconds[self.phase] += now - self.since
        self.phase, self.since = phase, now

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock of training."""
        self._start("train")

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock of validation."""
        self._start("validation")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock of training again."""
        self._start("train")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._start("")

    def state_dict(self) -> dict[str, float]:
        """Return the seconds so far of each phase."""
        self._start(self.phase)
        return dict(self.seconds)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the seconds before the run was resumed."""
        self.seconds = dict(state)

    def summary(self, steps: int) -> dict[str, float]:
        """Return times in seconds, "steps" and "peak_memory_mb" (the GPU's if one was used)."""
        peak = torch.cuda.is_available() and torch.cuda.max_memory_allocated()
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
        return {
            "seconds_train": self.seconds["train"],
            "seconds_validation": self.seconds["validation"],
            "steps": steps,
            "seconds_per_step": self.seconds["train"] / steps,
            "peak_memory_mb": peak / 2**20,
        }
