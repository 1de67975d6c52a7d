"""What each task predicts: one row per task, and nothing elsewhere asks for a task's name.

A published task has fixed classes; the task of one's own data is what its files say.
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
    """F1 of each sample over its labels, then the mean; a sample with no positive counts as 0."""

    def __init__(self):
        super().__init__(multidim_average="samplewise", **FAST)

    def compute(self) -> Tensor:
        """Give the mean over all samples seen."""
        return super().compute().mean()


class MacroF1(MultilabelF1Score):
    """Mean F1 over the classes that occur or are named; the others have no F1 (as published)."""

    def __init__(self, num_labels: int):
        super().__init__(num_labels, average="none", **FAST)

    def compute(self) -> Tensor:
        """Give the mean over the classes."""
        seen = (self.tp + self.fp + self.fn) > 0
        return super().compute()[seen].mean() if seen.any() else torch.tensor(0.0)


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur; NaN if none does."""

    def __init__(self, num_labels: int):
        super().__init__(num_labels, average="none", **FAST)

    def compute(self) -> Tensor:
        """Give the mean over the classes."""
        present = dim_zero_cat(self.target).any(dim=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            return super().compute()[present].mean()


class PositiveClass(BinaryAUROC):
    """AUROC of the second of two classes, from (B, 2) probabilities; NaN if only one occurs."""

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Add a batch."""
        super().update(probabilities[:, 1], label)

    def compute(self) -> Tensor:
        """Give the area under the curve."""
        label = dim_zero_cat(self.target)
        return super().compute() if label.min() < label.max() else torch.tensor(torch.nan)


def multilabel_metrics(num_classes: int) -> dict[str, Metric]:
    """F1 at 0.5 in four averages, and mean average precision, which needs no threshold."""
    return {
        "F1_Macro": MacroF1(num_classes),
        "F1_Micro": MultilabelF1Score(num_classes, average="micro", **FAST),
        "F1_Samples": SamplesF1(),
        "F1_Weighted": MultilabelF1Score(num_classes, average="weighted", **FAST),
        "mAP": MeanAveragePrecision(num_classes),
    }


def multiclass_metrics(num_classes: int) -> dict[str, Metric]:
    """Share of right answers."""
    return {"accuracy": MulticlassAccuracy(num_classes, average="micro", **FAST)}


def binary_metrics(num_classes: int) -> dict[str, Metric]:
    """Area under the ROC curve, and the share of right answers."""
    return {"AUROC": PositiveClass(**FAST)} | multiclass_metrics(num_classes)


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        num_classes: outputs of the head, C.
        loss: (logits (B, C), label) -> scalar, the mean over the batch.
        probabilities: logits (B, C) -> probabilities (B, C).
        metrics: num_classes -> fresh metrics of (probabilities, label).
        headline: the metric that selects checkpoints and is reported in the paper.
        chosen: probabilities (B, C) -> whether each class is part of the answer (B, C).
    """

    num_classes: int
    loss: Callable[[Tensor, Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    metrics: Callable[[int], dict[str, Metric]]
    headline: str
    chosen: Callable[[Tensor], Tensor]

    @property
    def multilabel(self) -> bool:
        """Whether a sample may have several classes."""
        return self.loss is F.binary_cross_entropy_with_logits

    def collection(self, prefix: str = "") -> MetricCollection:
        """Make fresh metrics.

        They are fed probabilities: torchmetrics would apply a sigmoid to logits only in batches
        where one of them lies outside [0, 1].
        """
        return MetricCollection(self.metrics(self.num_classes), prefix=prefix)

    def score(self, logits: Tensor, label: Tensor) -> dict[str, float]:
        """Compute all metrics of (N, C) logits at once."""
        return self._rate(self.probabilities(logits.float()), label)

    def _rate(self, probabilities: Tensor, label: Tensor) -> dict[str, float]:
        metrics = self.collection()
        metrics.update(probabilities, label.long())
        return {name: float(value) for name, value in metrics.compute().items()}

    def constant_baseline(self, label: Tensor) -> dict[str, float]:
        """Compute what no input is needed for: the better of two constant answers, by metric.

        One is the labels' own frequencies, the other names every class that occurs; what a model
        scores above this is what it has learned from its input.

        Args:
            label: (N,) or (N, C), of the split that is scored.
        """
        rows = label if label.ndim > 1 else label.long().bincount(minlength=self.num_classes)
        share = (rows.double().sum(0) if label.ndim > 1 else rows.double()) / len(label)
        answers = (share.logit(eps=1e-6), torch.where(share > 0, 10.0, -10.0))
        # One row each, which all samples share: (N, C) numbers may be more than the memory.
        constant = (self.probabilities(answer.float()[None]) for answer in answers)
        scores = [self._rate(row.expand(len(label), -1), label) for row in constant]
        return {name: max(score[name] for score in scores) for name in scores[0]}


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the classes."""
    return logits.softmax(dim=-1)


def above_half(probabilities: Tensor) -> Tensor:
    """Choose as the F1 scores do."""
    return probabilities > 0.5


def largest(probabilities: Tensor) -> Tensor:
    """Choose one class."""
    return F.one_hot(probabilities.argmax(dim=-1), probabilities.shape[-1]).bool()


TASK_TYPES = {  # task_type of an arrow file -> everything but the number of classes
    "binary": Task(2, F.cross_entropy, softmax, binary_metrics, "AUROC", largest),
    "multiclass": Task(0, F.cross_entropy, softmax, multiclass_metrics, "accuracy", largest),
    "multilabel": Task(0, F.binary_cross_entropy_with_logits, torch.sigmoid, multilabel_metrics,
                       "F1_Macro", above_half),
}  # fmt: skip
FROM_FILES = None  # the row of a data set whose arrow files say what it predicts

TASKS: dict[str, Task | None] = {
    "mmimdb": replace(TASK_TYPES["multilabel"], num_classes=23),
    "food101": replace(TASK_TYPES["multiclass"], num_classes=101),
    "hatememes": TASK_TYPES["binary"],
    "manifest": FROM_FILES,
}


def resolve_task(name: str, label_metadata: Mapping[str, Any]) -> Task:
    """Give a task.

    Args:
        name: key of ``TASKS``.
        label_metadata: "class_names" and "task_type", as arrow files say them or a checkpoint's model_config.

    Raises:
        UserError: the task is what the files say, and these do not say it, or nothing known.
    """
    if TASKS[name] is not FROM_FILES:
        return TASKS[name]
    if not {"class_names", "task_type"} <= label_metadata.keys():
        raise UserError(
            f"task={name}, but its files do not say their classes; make them with "
            f"`python make_arrow.py --dataset {name}`"
        )
    kind, classes = label_metadata["task_type"], len(label_metadata["class_names"])
    if kind not in TASK_TYPES or classes < 2 or (kind == "binary" and classes != 2):
        raise UserError(f"task_type={kind} with {classes} classes is none of {', '.join(TASK_TYPES)}")
    return replace(TASK_TYPES[kind], num_classes=classes)
