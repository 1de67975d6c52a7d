"""SIGTERM and ctrl-C in a training: save the very point that was reached, say how to go on, exit.

A run can be stopped between two optimiser steps, where nothing is half done: no gradients wait for
more micro-batches, and a validation that began is over. What is beside Lightning's own loops,
optimiser and schedule, this saves: the random state and the training metrics of the epoch so far,
of every process. The sampler (``datamodules.samplers``) leaves out the samples that were seen.
"""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from clip.engine.trainer import LAST, NAME

SIGNALS = (signal.SIGTERM, signal.SIGINT)
IMPATIENT = 3  # presses of ctrl-C
SHELL = 128  # a shell tells a signal by this much more
State = dict[str, Any]


class GracefulStop(Callback):
    """Stops a training on a signal, at the next optimiser step; at the third ctrl-C at once.

    Args:
        folder: of the run.
        per_pass: samples of one forward pass, on which the point within an epoch depends.
    """

    def __init__(self, folder: Path, per_pass: int):
        self.folder, self.per_pass = folder, per_pass
        self.received: int | None = None
        self.presses = 0
        self.restored: list[State] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Listen, in place of Lightning's handlers, and take up what was left."""
        for number in SIGNALS:
            signal.signal(number, self._note)
        if trainer.global_rank < len(self.restored):
            restore(module, self.restored[trainer.global_rank])

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write down the log of the epochs that the last checkpoint lets nobody do again."""
        for logger in trainer.loggers:
            logger.save()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop listening: nothing can be lost any more."""
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                          else signal.SIG_DFL)  # fmt: skip

    def _note(self, number: int, frame: FrameType | None) -> None:
        # torchrun passes on what a terminal or SLURM has sent to all, and may do so twice.
        self.presses += number == signal.SIGINT
        if self.presses == IMPATIENT:
            raise SystemExit(SHELL + number)
        self.received = self.received or number

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: State, batch_idx: int
    ) -> None:
        """Stop here if a process was told to, and an optimiser step has just been made."""
        loop = trainer.fit_loop.epoch_loop
        if self.restored:  # Lightning counts the last step again where it goes on within an epoch
            self.restored, loop._batches_that_stepped = [], trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches:
            return
        # One process may hear of it earlier than another, and all must stop at one step.
        if not trainer.strategy.reduce_boolean_decision(bool(self.received), all=False):
            return
        if batch_idx:
            # This batch has been fetched, but not begun.
            progress = loop.batch_progress
            progress.current.ready = progress.current.completed
            progress.total.ready = progress.total.completed
            self._save(trainer)
        self._leave(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        name = NAME.format(epoch=trainer.current_epoch, step=trainer.global_step)
        trainer.save_checkpoint(self.folder / "checkpoints" / f"{name}-{LAST}.pt", weights_only=False)

    def _leave(self, trainer: pl.Trainer) -> None:
        number = self.received or signal.SIGTERM
        name = signal.Signals(number).name
        if trainer.global_step:
            print(f"\nstopped by {name} after step {trainer.global_step}; the same command with "
                  f"resume_from={self.folder} goes on from there", flush=True)  # fmt: skip
        else:
            print(f"\nstopped by {name} before anything was trained that is kept", flush=True)
        for logger in trainer.loggers:
            logger.save()
        raise SystemExit(SHELL + number)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: State) -> None:
        """Add the states of all processes, and in which shape an epoch can go on."""
        within = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        states = [snapshot(module)]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, snapshot(module))
        whole = within == trainer.num_training_batches
        checkpoint["position"] = {
            "batches": 0 if whole else within,
            "per_gpu_batchsize": self.per_pass,
            "processes": trainer.world_size,
            "states": [state | {"metrics": {}} for state in states] if whole else states,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: State) -> None:
        """Lead the loader to the place, and keep the states until training starts."""
        position = checkpoint.get("position", {})
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        trainer.datamodule.resume_at(epoch, position.get("batches", 0))
        self.restored = position.get("states", [])


def snapshot(module: pl.LightningModule) -> State:
    """Copy the random states and the metrics of the training split so far."""
    return {
        "random": torch.get_rng_state(),
        "random_gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "metrics": {
            name: {"updates": metric._update_count} | _copied(metric.metric_state)
            for name, metric in _training_metrics(module).items()
        },
    }


def restore(module: pl.LightningModule, state: State) -> None:
    """Put back what ``snapshot`` copied."""
    torch.set_rng_state(state["random"])
    if state["random_gpu"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_gpu"])
    for name, metric in _training_metrics(module).items():
        values = dict(state["metrics"].get(name, {}))
        metric._update_count = values.pop("updates", metric._update_count)
        for key, value in values.items():
            setattr(metric, key, _on(module.device, value))


def _training_metrics(module: pl.LightningModule) -> dict[str, Metric]:
    """Name the metrics one by one; a collection shows those that share a state the newest one."""
    found: dict[str, Metric] = {}
    for kind, metric in {"scores": module.metrics[0], "loss": module.losses[0]}.items():
        if isinstance(metric, MetricCollection):
            found |= metric.items(keep_base=True, copy_state=False)
        else:
            found[kind] = metric
    return found


def _copied(states: State) -> State:
    return {key: [one.cpu() for one in value] if isinstance(value, list) else value.cpu().clone()
            for key, value in states.items()}  # fmt: skip


def _on(device: torch.device, value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    if isinstance(value, list):
        return [one.to(device) for one in value]
    return value.to(device)
