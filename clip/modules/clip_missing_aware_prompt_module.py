"""The LightningModule: one shared step for training, validation and test; nothing else."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torchmetrics import MeanMetric

from clip.engine.loss_guard import LossGuard
from clip.modules.adapter import check_adapter
from clip.modules.objectives import Task
from clip.modules.optim import OptimSettings, make_optimizer
from clip.modules.prompted_model import PromptedModel, weighted_sum
from clip.utils.errors import UserError

SPLITS = ("train", "val", "test")


class MissingAwarePromptModule(pl.LightningModule):
    """Trains what the model declares trainable and logs under the split's true name.

    Args:
        model: the frozen backbone with prompts and head.
        task: loss and metrics.
        optim: optimiser and schedule.
        normalize: pixels (B, 3, H, W) uint8, on the device -> what the image tower takes.
        model_config: what a checkpoint must agree with to be loaded; saved in it under "model_config".
        guard: of training losses; None for one that stops.

    Attributes:
        training_config: what a run must agree with to go on from a checkpoint; saved in it.
        guard: watches for training losses that are no numbers.
    """

    strict_loading = False  # checkpoints leave the backbone out; on_load_checkpoint is strict

    def __init__(
        self,
        model: PromptedModel,
        task: Task,
        optim: OptimSettings,
        normalize: Callable[[Tensor], Tensor],
        model_config: dict,
        guard: LossGuard | None = None,
    ):
        super().__init__()
        self.model, self.task, self.optim, self.model_config = model, task, optim, model_config
        self.normalize, self.training_config = normalize, {}
        self.guard = guard or LossGuard()
        # A ModuleDict may not have a key "train", which is a method of every module.
        self.metrics = nn.ModuleList(task.collection(f"{split}/") for split in SPLITS)
        self.losses = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in SPLITS)

    def _step(self, batch: dict[str, Any], split: str) -> Tensor:
        rest = (batch[key] for key in ("tokens", "missing_type", "present"))
        heads, label = self.model.heads(self.normalize(batch["image"]), *rest), batch["label"]
        logits = weighted_sum(heads)
        loss = weighted_sum([(weight, self.task.loss(one, label)) for weight, one in heads])
        metrics, accepted = self.metrics[SPLITS.index(split)], True
        if split == "train":
            self.log("train/loss_step", loss, prog_bar=True)
            accepted = self.guard.accepts(loss, batch)
        if accepted:
            metrics.update(self.task.probabilities(logits.detach().float()), label.long())
            # Lightning's own mean over processes rounds the number of samples down, and
            # torchmetrics leaves weights out where NaN may pass: each sample counts as a value.
            self.losses[SPLITS.index(split)].update(loss.detach().expand(len(label)))
        self.log(f"{split}/loss", self.losses[SPLITS.index(split)], on_step=False, on_epoch=True)
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(label))
        return loss if accepted else self._nothing()

    def _nothing(self) -> Tensor:
        """Give a loss of zero to which all that trains contributes zero gradients.

        The one that was computed would not do: nought times infinity is no number.
        """
        return sum((0 * p).sum() for p in self.model.parameters() if p.requires_grad)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Give the loss of a micro-batch.

        Its samples weigh the same in a smaller last one: how a step's samples are divided into
        micro-batches does not change the step.
        """
        share = len(batch["label"]) / self.trainer.datamodule.batch_size
        return share * self._step(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Score a validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Score a test batch."""
        self._step(batch, "test")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Stop before a step that a loss spoils, or record what it leaves out."""
        self.guard.check(self)

    def on_train_epoch_end(self) -> None:
        """Stop a run that has diverged."""
        self._refuse_infinite("train")

    def on_validation_epoch_end(self) -> None:
        """Stop a run that has diverged, before its weights are kept as the best."""
        self._refuse_infinite("val")

    def _refuse_infinite(self, split: str) -> None:
        loss = self.losses[SPLITS.index(split)].compute()
        if not loss.isfinite():
            raise UserError(
                f"{split}/loss is {float(loss)} in epoch {self.current_epoch}: the run diverged; "
                f"lower learning_rate={self.optim.learning_rate} or give precision=32"
            )

    def configure_optimizers(self) -> dict:
        """Make the optimiser; its schedule is stepped after each optimiser step."""
        # max_steps is -1 unless set: only this property knows the real number of steps.
        exact = int(self.trainer.estimated_stepping_batches)
        batches = self.trainer.num_training_batches * max(1, self.trainer.max_epochs or 1)
        total = self.optim.total_steps(exact, batches, self.trainer.accumulate_grad_batches)
        optimizer, schedule = make_optimizer(self.model, self.optim, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep only what is the model's own, and write down what it belongs to."""
        own = self.model.adapter_state_dict()
        checkpoint["state_dict"] = {name: tensor.cpu().clone() for name, tensor in own.items()}
        checkpoint["model_config"], checkpoint["training_config"] = self.model_config, self.training_config

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint of another model before Lightning loads it."""
        check_adapter(self.model, checkpoint["state_dict"], "resume_from")
        checkpoint["state_dict"] = {f"model.{k}": v for k, v in checkpoint["state_dict"].items()}
