"""Registry of the tasks with their losses, metrics and headline metric.

A published task has fixed classes; the arrow files of one's own data say what its task is.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_f1_score
from torchmetrics.utilities import dim_zero_cat

from clip.utils.errors import UserError

FAST = {"validate_args": False}  # each check of the arguments would wait for the GPU


class SamplesF1(MeanMetric):
    """Mean over the samples of the F1 over the labels of each; a sample without positives counts as 0.

    The states of BinaryF1Score with multidim_average="samplewise" have no dimension in a process with one sample and
    one dimension in the others, which then wait for each other forever.
    """

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Add a batch."""
        super().update(binary_f1_score(probabilities, label, multidim_average="samplewise", **FAST))


class MacroF1(MultilabelF1Score):
    """Mean F1 over the classes that occur or are predicted (F1 is NaN for the others), 0 if there are none."""

    def compute(self) -> Tensor:
        """Return the mean over the classes."""
        found = super().compute()
        return found[~found.isnan()].mean().nan_to_num()


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur, NaN if none does; torchmetrics counts the others as 0."""

    def compute(self) -> Tensor:
        """Return the mean over the classes."""
        occurs = dim_zero_cat(self.target).any(dim=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            return super().compute()[occurs].mean()


class SplitPredictions(Metric):
    """Probabilities and labels of all samples of a split, each once and in their order, whatever process had them."""

    def __init__(self):
        super().__init__()
        for name in ("sample_id", "probabilities", "label"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, sample_id: Tensor, probabilities: Tensor, label: Tensor) -> None:
        """Add a batch."""
        self.sample_id.append(sample_id)
        self.probabilities.append(probabilities)
        self.label.append(label)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the probabilities (N, C) and labels, (N,) or (N, C), on the CPU."""
        sample_id, *values = (dim_zero_cat(state).cpu() for state in (self.sample_id, self.probabilities, self.label))
        _, first = np.unique(sample_id.numpy(), return_index=True)  # with fewer samples than processes, all score them
        return tuple(value[first] for value in values)


class BalancedAccuracy(MulticlassConfusionMatrix):
    """Mean recall over the classes that occur, as scikit-learn's ``balanced_accuracy_score``."""

    def compute(self) -> Tensor:
        """Return the mean over the classes."""
        counts = super().compute()  # (true class, predicted class)
        occurs = counts.sum(1) > 0
        return (counts.diagonal()[occurs] / counts.sum(1)[occurs]).mean()


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
        "F1_Macro": MacroF1(num_classes, average="none", zero_division=torch.nan, **FAST),
        "F1_Micro": MultilabelF1Score(num_classes, average="micro", **FAST),
        "F1_Samples": SamplesF1(nan_strategy="disable"),
        "F1_Weighted": MultilabelF1Score(num_classes, average="weighted", **FAST),
        "mAP": MeanAveragePrecision(num_classes, average="none", **FAST),
    }


def multiclass_metrics(num_classes: int) -> dict[str, Metric]:
    """Return the accuracy, its mean over the classes that occur, and the mean F1 over the classes."""
    return {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **FAST),
        "balanced_accuracy": BalancedAccuracy(num_classes, **FAST),
        "F1_Macro": MulticlassF1Score(num_classes, average="macro", **FAST),
    }


def binary_metrics(num_classes: int) -> dict[str, Metric]:
    """Return the area under the ROC curve and the metrics of more classes."""
    return {"AUROC": PositiveClassAUROC(**FAST)} | multiclass_metrics(num_classes)


@dataclass(frozen=True)
class Task:
    """A classification task."""

    num_classes: int  # outputs of the head, C
    loss: Callable[[Tensor, Tensor], Tensor]  # (logits (B, C), label) -> scalar, the mean over the batch
    probabilities: Callable[[Tensor], Tensor]  # logits (B, C) -> (B, C)
    metrics: Callable[[int], dict[str, Metric]]  # num_classes -> fresh metrics of (probabilities, label)
    headline: str  # metric that selects checkpoints and that the paper reports

    @property
    def multilabel(self) -> bool:
        """Whether a sample may have several classes."""
        return self.loss is F.binary_cross_entropy_with_logits

    def balanced_loss(self, label: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss in which all classes of the labels (N,) or (N, C) have the same weight in sum.

        A sample of one class weighs N / (C n_c), n_c being the samples of its class; with several classes, the positive
        term of a class weighs (N - n_c) / n_c. The result is the mean over the batch, not the weighted mean, so that
        micro-batches do not change a step.
        """
        if self.multilabel:
            count = label.sum(0).clamp(min=1)
            weight = (len(label) - count) / count
            return lambda logits, label: F.binary_cross_entropy_with_logits(
                logits, label, pos_weight=weight.to(logits.device)
            )
        count = label.bincount(minlength=self.num_classes).clamp(min=1)
        weight = len(label) / (self.num_classes * count.float())
        return lambda logits, label: (
            F.cross_entropy(logits, label, weight.to(logits.device), reduction="sum") / len(label)
        )

    def decide(self, probabilities: Tensor) -> Tensor:
        """Return which classes (B, C) are predicted: all above 0.5, as for the F1 scores, or the most probable one."""
        if self.multilabel:
            return probabilities > 0.5
        return F.one_hot(probabilities.argmax(dim=-1), self.num_classes).bool()

    def class_names(self, label_metadata: Mapping[str, Any]) -> list[str]:
        """Return the names of the classes; "class 7" and so on for those that the data do not name."""
        names = label_metadata.get("class_names", [])
        return [*names, *(f"class {i}" for i in range(len(names), self.num_classes))]

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
        """Return the score of the best constant prediction, per metric, on labels (N,) or (N, C).

        It is the better of two: the frequencies of the labels, and all classes that occur.
        """
        counts = label.double().sum(0) if label.ndim > 1 else label.long().bincount(minlength=self.num_classes).double()
        share = counts / len(label)
        # One row each, which all samples share: (N, C) numbers may be more than the memory.
        constants = (share.logit(eps=1e-6), torch.where(share > 0, 10.0, -10.0))
        rows = [self.probabilities(logits.float()[None]).expand(len(label), -1) for logits in constants]
        scores = [self._score(row, label) for row in rows]
        return {name: max(score[name] for score in scores) for name in scores[0]}


BCE, SOFTMAX = F.binary_cross_entropy_with_logits, partial(torch.softmax, dim=-1)
TASK_TYPES = {  # task_type of an arrow file -> everything but the number of classes
    "binary": Task(2, F.cross_entropy, SOFTMAX, binary_metrics, "AUROC"),
    "multiclass": Task(0, F.cross_entropy, SOFTMAX, multiclass_metrics, "accuracy"),
    "multilabel": Task(0, BCE, torch.sigmoid, multilabel_metrics, "F1_Macro"),
}
TASKS: dict[str, Task | None] = {
    "mmimdb": replace(TASK_TYPES["multilabel"], num_classes=23),
    "food101": replace(TASK_TYPES["multiclass"], num_classes=101),
    "hatememes": TASK_TYPES["binary"],
    "manifest": None,  # its arrow files say what their task is
}


def resolve_task(name: str, label_metadata: Mapping[str, Any]) -> Task:
    """Return a task of ``TASKS``; raise a UserError if the metadata that it needs is absent or invalid.

    The metadata are "class_names" and "task_type" of the arrow files or of a checkpoint's model_config.
    """
    if (task := TASKS[name]) is not None:
        return task
    if not {"class_names", "task_type"} <= label_metadata.keys():
        raise UserError(
            f"task={name}, but its arrow files do not name their classes; convert them with "
            f"`python make_arrow.py --dataset {name}`"
        )
    kind, classes = label_metadata["task_type"], len(label_metadata["class_names"])
    if kind not in TASK_TYPES or classes < 2 or (kind == "binary" and classes != 2):
        raise UserError(f"task_type={kind} with {classes} classes is not one of {', '.join(TASK_TYPES)}")
    return replace(TASK_TYPES[kind], num_classes=classes)
