"""Registry of the tasks with their losses, metrics and headline metric.

A published task has fixed classes; the arrow files of one's own data say what its task is.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryF1Score,
    MulticlassAccuracy,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.utilities import dim_zero_cat

from clip.utils.errors import UserError

FAST = {"validate_args": False}  # each check of the arguments would wait for the GPU


class SamplesF1(BinaryF1Score):
    """F1 of each sample over its labels, then the mean; a sample without positives counts as 0."""

    def __init__(self):
        super().__init__(multidim_average="samplewise", **FAST)

    def compute(self) -> Tensor:
        """Return the mean over all samples."""
        return super().compute().mean()


class MacroF1(MultilabelF1Score):
    """Mean F1 over the classes that occur or are predicted; torchmetrics counts the others as 0."""

    def __init__(self, num_labels: int):
        super().__init__(num_labels, average="none", **FAST)

    def compute(self) -> Tensor:
        """Return the mean over the classes."""
        has_f1 = (self.tp + self.fp + self.fn) > 0
        return super().compute()[has_f1].mean() if has_f1.any() else torch.tensor(0.0)


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur, NaN if none does; torchmetrics counts the others as 0."""

    def __init__(self, num_labels: int):
        super().__init__(num_labels, average="none", **FAST)

    def compute(self) -> Tensor:
        """Return the mean over the classes."""
        occurs = dim_zero_cat(self.target).any(dim=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            return super().compute()[occurs].mean()


class PositiveClassAUROC(BinaryAUROC):
    """AUROC of the second of two classes, from (B, 2) probabilities; NaN if only one class occurs."""

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Add a batch."""
        super().update(probabilities[:, 1], label)

    def compute(self) -> Tensor:
        """Return the area under the curve."""
        label = dim_zero_cat(self.target)
        return super().compute() if label.min() < label.max() else torch.tensor(torch.nan)


def multilabel_metrics(num_classes: int) -> dict[str, Metric]:
    """Return F1 at 0.5 in four averages, and mean average precision, which needs no threshold."""
    return {
        "F1_Macro": MacroF1(num_classes),
        "F1_Micro": MultilabelF1Score(num_classes, average="micro", **FAST),
        "F1_Samples": SamplesF1(),
        "F1_Weighted": MultilabelF1Score(num_classes, average="weighted", **FAST),
        "mAP": MeanAveragePrecision(num_classes),
    }


def multiclass_metrics(num_classes: int) -> dict[str, Metric]:
    """Return the accuracy."""
    return {"accuracy": MulticlassAccuracy(num_classes, average="micro", **FAST)}


def binary_metrics(num_classes: int) -> dict[str, Metric]:
    """Return the area under the ROC curve and the accuracy."""
    return {"AUROC": PositiveClassAUROC(**FAST)} | multiclass_metrics(num_classes)


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        num_classes: outputs of the head, C.
        loss: (logits (B, C), label) -> scalar, the mean over the batch.
        probabilities: logits (B, C) -> probabilities (B, C).
        metrics: num_classes -> fresh metrics of (probabilities, label).
        headline: metric that selects checkpoints and that the paper reports.
        decide: probabilities (B, C) -> whether each class is predicted (B, C).
    """

    num_classes: int
    loss: Callable[[Tensor, Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    metrics: Callable[[int], dict[str, Metric]]
    headline: str
    decide: Callable[[Tensor], Tensor]

    @property
    def multilabel(self) -> bool:
        """Whether a sample may have several classes."""
        return self.loss is F.binary_cross_entropy_with_logits

    def collection(self, prefix: str = "") -> MetricCollection:
        """Return fresh metrics.

        They take probabilities: torchmetrics would apply a sigmoid to logits only in batches where
        one of them lies outside [0, 1].
        """
        return MetricCollection(self.metrics(self.num_classes), prefix=prefix)

    def score(self, logits: Tensor, label: Tensor) -> dict[str, float]:
        """Return all metrics of (N, C) logits."""
        return self._score(self.probabilities(logits.float()), label)

    def _score(self, probabilities: Tensor, label: Tensor) -> dict[str, float]:
        metrics = self.collection()
        metrics.update(probabilities, label.long())
        return {name: float(value) for name, value in metrics.compute().items()}

    def constant_baseline(self, label: Tensor) -> dict[str, float]:
        """Return the score of the best constant prediction, per metric.

        It is the better of two: the frequencies of the labels, and all classes that occur.

        Args:
            label: labels of the split that is scored, (N,) or (N, C).
        """
        counts = label.double().sum(0) if label.ndim > 1 else label.long().bincount(minlength=self.num_classes).double()
        share = counts / len(label)
        # One row each, which all samples share: (N, C) numbers may be more than the memory.
        rows = [
            self.probabilities(logits.float()[None])
            for logits in (share.logit(eps=1e-6), torch.where(share > 0, 10.0, -10.0))
        ]
        scores = [self._score(row.expand(len(label), -1), label) for row in rows]
        return {name: max(score[name] for score in scores) for name in scores[0]}


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax over the classes."""
    return logits.softmax(dim=-1)


def threshold(probabilities: Tensor) -> Tensor:
    """Predict every class above 0.5, as the F1 scores do."""
    return probabilities > 0.5


def argmax(probabilities: Tensor) -> Tensor:
    """Predict the most probable class."""
    return F.one_hot(probabilities.argmax(dim=-1), probabilities.shape[-1]).bool()


BCE = F.binary_cross_entropy_with_logits
TASK_TYPES = {  # task_type of an arrow file -> everything but the number of classes
    "binary": Task(2, F.cross_entropy, softmax, binary_metrics, "AUROC", argmax),
    "multiclass": Task(0, F.cross_entropy, softmax, multiclass_metrics, "accuracy", argmax),
    "multilabel": Task(0, BCE, torch.sigmoid, multilabel_metrics, "F1_Macro", threshold),
}
TASK_FROM_METADATA = None  # the row of a data set whose arrow files say what their task is

TASKS: dict[str, Task | None] = {
    "mmimdb": replace(TASK_TYPES["multilabel"], num_classes=23),
    "food101": replace(TASK_TYPES["multiclass"], num_classes=101),
    "hatememes": TASK_TYPES["binary"],
    "manifest": TASK_FROM_METADATA,
}


def resolve_task(name: str, label_metadata: Mapping[str, Any]) -> Task:
    """Return a task.

    Args:
        name: key of ``TASKS``.
        label_metadata: "class_names" and "task_type" of the arrow files or of a checkpoint's model_config.

    Raises:
        UserError: the metadata that the task needs is absent or invalid.
    """
    if TASKS[name] is not TASK_FROM_METADATA:
        return TASKS[name]
    if not {"class_names", "task_type"} <= label_metadata.keys():
        raise UserError(
            f"task={name}, but its arrow files do not name their classes; convert them with "
            f"`python make_arrow.py --dataset {name}`"
        )
    kind, classes = label_metadata["task_type"], len(label_metadata["class_names"])
    if kind not in TASK_TYPES or classes < 2 or (kind == "binary" and classes != 2):
        raise UserError(f"task_type={kind} with {classes} classes is not one of {', '.join(TASK_TYPES)}")
    return replace(TASK_TYPES[kind], num_classes=classes)
