"""The LightningModule: one shared step for training, validation and test; nothing else."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from clip.errors import UserError
from clip.modules.model import PromptedCLIP
from clip.modules.objectives import Task
from clip.modules.optim import OptimSettings, make_optimizer

SPLITS = ("train", "val", "test")


class MissingAwarePromptModule(pl.LightningModule):
    """Trains what the model declares trainable and logs under the split's true name.

    Args:
        model: the frozen CLIP with prompts and head.
        task: loss and metrics.
        optim: optimiser and schedule.
        identity: what a checkpoint must agree with to be loaded; saved in it under "identity".
    """

    strict_loading = False  # checkpoints leave the frozen CLIP out; on_load_checkpoint is strict

    def __init__(self, model: PromptedCLIP, task: Task, optim: OptimSettings, identity: dict):
        super().__init__()
        self.model, self.task, self.optim, self.identity = model, task, optim, identity
        # A ModuleDict may not have a key "train", which is a method of every module.
        self.metrics = nn.ModuleList(task.collection(f"{split}/") for split in SPLITS)

    def _step(self, batch: dict[str, Tensor], split: str) -> Tensor:
        logits = self.model(batch["image"], batch["tokens"], batch["missing_type"])
        label = batch["label"]
        loss = self.task.loss(logits, label)
        metrics = self.metrics[SPLITS.index(split)]
        metrics.update(self.task.probabilities(logits.detach().float()), label.long())
        progress = split == "train"
        self.log(f"{split}/loss", loss, on_step=progress, on_epoch=True, prog_bar=progress,
                 batch_size=len(label), sync_dist=not progress)  # fmt: skip
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(label))
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Give the loss of a micro-batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score a validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score a test batch."""
        self._step(batch, "test")

    def train(self, mode: bool = True) -> "MissingAwarePromptModule":
        """Switch the mode of what trains; CLIP has no dropout and stays in eval mode."""
        super().train(mode)
        self.model.image_encoder.eval()
        self.model.text_encoder.eval()
        return self

    def configure_optimizers(self) -> dict:
        """Make the optimiser; its schedule is stepped after each optimiser step."""
        # max_steps is -1 unless set: only this property knows the real number of steps.
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = make_optimizer(self.model, self.optim, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep only what trains, and write down what it belongs to."""
        checkpoint["state_dict"] = trained_state(self.model)
        checkpoint["identity"] = self.identity

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint of another model before Lightning loads it."""
        check_identity(self.identity, checkpoint["identity"], "resume_from")
        check_trained(self.model, checkpoint["state_dict"], "resume_from")
        checkpoint["state_dict"] = {f"model.{k}": v for k, v in checkpoint["state_dict"].items()}


def trained_state(model: PromptedCLIP) -> dict[str, Tensor]:
    """Copy the tensors that train to the CPU, by name."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().cpu().clone() for name in model.trainable_names()}


def check_identity(ours: dict, theirs: dict, source: object) -> None:
    """Refuse a checkpoint of another task, CLIP or prompt shape.

    The name of the CLIP may differ, since a folder can move; its SHA-256 may not.

    Raises:
        UserError: names the first setting that differs, with both values.
    """
    for key in (key for key in ours if key != "vit"):
        if ours[key] != theirs.get(key):
            clips = f" (vit={theirs.get('vit')} there, vit={ours['vit']} here)"
            raise UserError(
                f"{source} has {key}={theirs.get(key)}, but this run has {key}={ours[key]}"
                f"{clips if key == 'backbone_sha256' else ''}; they must agree"
            )


def check_trained(model: PromptedCLIP, state: dict[str, Tensor], source: object) -> None:
    """Refuse tensors that are not exactly those the model trains.

    Raises:
        UserError: names the first tensor that is missing, left over or of another shape.
    """
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected = {name: expected[name] for name in model.trainable_names()}
    for name in [*expected, *state]:
        theirs = tuple(state[name].shape) if name in state else "absent"
        ours = expected.get(name, "absent")
        if theirs != ours:
            raise UserError(
                f"{source}: {name} is {theirs} in the checkpoint and {ours} in the model"
            )


def load_trained(model: PromptedCLIP, state: dict[str, Tensor], source: object) -> None:
    """Copy a checkpoint's tensors into the model, all of them or none."""
    check_trained(model, state, source)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
