"""LightningModule with one shared step for training, validation and test."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from tqdm import tqdm

from clip.config import OptimizerSettings
from clip.modules.objectives import SplitPredictions, Task
from clip.modules.optim import count_warmup_steps, make_optimizer, schedule_steps
from clip.modules.prompted_model import Inputs, PromptedModel
from clip.modules.prompts.base import weighted_sum
from clip.utils.errors import UserError

PREFIXES = ("train/", "val/", "test/")  # prefixes of what is logged; a ModuleDict may not have a key "train"


class MissingAwarePromptModule(pl.LightningModule):
    """Trains the prompts and the head of a model and logs its scores.

    Args:
        model: the frozen backbone with prompts and head.
        task: loss and metrics.
        optim: optimizer and schedule settings.
        normalize: pixels (B, 3, H, W) uint8, on the device -> input of the image tower.
        model_config: what a checkpoint must agree with to be loaded; saved in it under "model_config".

    Attributes:
        training_config: hashes of the data that a run must agree with to resume from a checkpoint; saved in it.
        run: all "settings" of the run and the absolute "paths" of its files; saved in checkpoints.
        warmup_steps: optimizer steps of the warm-up, once the optimizer is configured.
        tested: probabilities and labels of the test split, once it is scored.
    """

    strict_loading = False  # checkpoints leave the backbone out; on_load_checkpoint is strict

    def __init__(
        self,
        model: PromptedModel,
        task: Task,
        optim: OptimizerSettings,
        normalize: Callable[[Tensor], Tensor],
        model_config: dict[str, Any],
    ):
        super().__init__()
        self.model, self.task, self.optim, self.normalize = model, task, optim, normalize
        self.model_config, self.training_config = model_config, {}
        self.run: dict[str, Any] = {"settings": {}, "paths": {}}
        self.train_loss = task.loss
        self.metrics = nn.ModuleDict({split: task.collection(split) for split in PREFIXES})
        self.losses = nn.ModuleDict({split: MeanMetric(nan_strategy="disable") for split in PREFIXES})
        self.metrics["train/"].persistent(True)  # for metric_states
        self.losses["train/"].persistent(True)
        self.test_predictions = SplitPredictions()
        self.step_losses: list[tuple[Tensor, Tensor]] = []  # loss and sample ids of each micro-batch of a step

    def on_fit_start(self) -> None:
        """Weigh the classes."""
        if self.optim.class_weights:
            labels = self.trainer.datamodule.datasets["train"].sample_labels()
            self.train_loss = self.task.balanced_loss(labels)

    def prepare_method(self) -> None:
        """Let the method see the training split; a run that resumes has the method's buffers in its checkpoint.

        All processes do so, since a collective operation waits for minutes only, and take the buffers of the first:
        their machines may round differently.
        """
        data = self.trainer.datamodule

        def batches() -> Iterator[Inputs]:
            for batch in tqdm(data.loader(data.datasets["train"]), desc="train samples", unit="batch", disable=None):
                yield self.inputs(move_data_to_device(batch, self.device))

        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            self.model.prompts.prepare(self.model, batches())
        for buffer in self.model.prompts.buffers():
            buffer.copy_(self.trainer.strategy.broadcast(buffer.cpu()))

    def encode_splits(self) -> None:
        """Encode each sample once in each case it may have, if nothing that trains affects the features.

        Autograd tells whether anything does. This is done before the first step, in the order of the file, and not in
        the batches of the first epoch: the features of a run that resumes must be the same bitwise, but products of
        matrices round a row depending on the others of its batch.
        """
        data, context = self.trainer.datamodule, self.trainer.precision_plugin.forward_context
        with context():
            features = self.features(move_data_to_device(data.collate([data.datasets["train"][0]]), self.device))
        if self.trainer.fast_dev_run or features.requires_grad:
            return
        for split, dataset in data.datasets.items():
            encoded = []
            for part in dataset.with_fixed_cases():
                batches = tqdm(data.loader(part), desc=f"{split} samples", unit="batch", disable=None)
                with context():
                    features = [self.features(move_data_to_device(batch, self.device)).cpu() for batch in batches]
                encoded.append(torch.cat(features))
            data.use_features(split, torch.stack(encoded))

    def inputs(self, batch: dict[str, Any]) -> Inputs:
        """Return what the model takes of a batch on the device."""
        return Inputs(self.normalize(batch["image"]), batch["tokens"], batch["missing_type"], batch["present"])

    def features(self, batch: dict[str, Any]) -> Tensor:
        """Return the features (B, F) of a batch, which may have them already."""
        return batch["features"] if "features" in batch else self.model.features(*self.inputs(batch))

    def model_step(self, batch: dict[str, Any], split: str) -> Tensor:
        """Return the loss of a batch and update the metrics of ``split``, one of ``PREFIXES``."""
        label, missing_case, prompts = batch["label"], batch["missing_type"], self.model.prompts
        heads = prompts.heads(self.features(batch), self.model.classifier, missing_case)
        task_loss = self.train_loss if split == "train/" else self.task.loss
        loss = prompts.loss(heads, label, missing_case, task_loss)
        if (auxiliary := prompts.auxiliary_loss()) is not None:
            loss = loss + auxiliary
        probabilities = self.task.probabilities(weighted_sum(heads).detach().float())
        self.metrics[split].update(probabilities, label.long())
        if split == "test/":
            self.test_predictions.update(batch["sample_id"], probabilities, label)
        # Lightning's own mean over processes rounds the number of samples down, and
        # torchmetrics leaves weights out where NaN may pass: each sample counts as a value.
        self.losses[split].update(loss.detach().expand(len(label)))
        return loss

    def log_scores(self, split: str) -> None:
        """Log loss and metrics at the end of an epoch; in each batch, Lightning would copy them for milliseconds."""
        self.log(f"{split}loss", self.losses[split])
        self.log_dict(self.metrics[split])

    def on_train_epoch_end(self) -> None:
        """Log the scores of the training split."""
        self.log_scores("train/")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch, scaled by its share of the step.

        Its samples weigh the same in a smaller last one: how a step's samples are divided into
        micro-batches does not change the step.
        """
        loss = self.model_step(batch, "train/")
        self.log("train/loss_step", loss, prog_bar=True)
        self.step_losses.append((loss.detach(), batch["sample_id"]))
        return loss * (len(batch["label"]) / self.trainer.datamodule.batch_size)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Score a validation batch."""
        self.model_step(batch, "val/")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Score a test batch."""
        self.model_step(batch, "test/")

    def on_test_epoch_end(self) -> None:
        """Log the scores and gather the predictions of all processes."""
        self.log_scores("test/")
        self.tested = self.test_predictions.compute()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise UserError in all processes if any loss of this step is not finite, before the step is made."""
        pending, self.step_losses = self.step_losses, []
        finite = torch.stack([loss for loss, _ in pending]).isfinite()
        if not self.trainer.strategy.reduce_boolean_decision(not finite.all(), all=False):  # waits for the GPU
            return
        ids = [i for (_, ids), is_finite in zip(pending, finite, strict=True) if not is_finite for i in ids.tolist()]
        where = f"epoch {self.current_epoch}, step {self.global_step}, sample ids {ids or 'of another process'}"
        self._raise_diverged("train/loss", where)

    def on_validation_epoch_end(self) -> None:
        """Log the scores; raise UserError if the run has diverged, before its weights are kept as the best."""
        if not self.losses["val/"].compute().isfinite():
            self._raise_diverged("val/loss", f"epoch {self.current_epoch}")
        self.log_scores("val/")

    def _raise_diverged(self, loss: str, where: str) -> NoReturn:
        raise UserError(
            f"{loss} is not finite in {where}: the run diverged or a sample is damaged; "
            f"lower learning_rate={self.optim.learning_rate} or set precision=32"
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Build the optimizer and its schedule, which advances after each optimizer step.

        What needs the data on the device comes first, since the number of steps is that of the loader.
        """
        self.model.eval()
        if self.trainer.ckpt_path is None:
            self.prepare_method()
        self.encode_splits()
        self.model.train()
        # The Trainer's max_steps is -1 unless set: only this property knows the real number of steps.
        steps = int(self.trainer.estimated_stepping_batches)
        batches = self.trainer.num_training_batches * max(1, self.trainer.max_epochs or 1)
        total = schedule_steps(self.optim, steps, batches // self.trainer.accumulate_grad_batches)
        self.warmup_steps = count_warmup_steps(self.optim, total)
        optimizer, schedule = make_optimizer(self.model, self.optim, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the adapter's tensors, and add what they belong to."""
        adapter = self.model.adapter_state_dict()
        checkpoint["state_dict"] = {name: tensor.cpu().clone() for name, tensor in adapter.items()}
        checkpoint["model_config"], checkpoint["training_config"] = self.model_config, self.training_config
        checkpoint["run"] = self.run

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the adapter's tensors before Lightning loads them."""
        self.model.check_adapter(checkpoint["state_dict"], "resume_from")
        checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in checkpoint["state_dict"].items()}

    def training_metrics(self) -> dict[str, Metric]:
        """Return the metrics of the training split by name; those that share states have the newest ones."""
        return dict(self.metrics["train/"].items(keep_base=True, copy_state=False)) | {"loss": self.losses["train/"]}

    def metric_states(self) -> dict[str, Any]:
        """Return the states of the training metrics of the epoch so far, on the CPU."""
        states = {name: metric.state_dict() for name, metric in self.training_metrics().items()}
        return move_data_to_device(states, torch.device("cpu"))

    def load_metric_states(self, states: dict[str, Any]) -> None:
        """Restore what ``metric_states`` returned."""
        for name, metric in self.training_metrics().items():
            metric.load_state_dict(move_data_to_device(states[name], self.device))
