"""Scores of each class, and which classes are confused."""

import warnings
from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from clip.modules.objectives import FAST, Task


def class_scores(task: Task, probabilities: Tensor, label: Tensor, names: Sequence[str]) -> pd.DataFrame:
    """Score each class against all others, given probabilities (N, C) and true classes (N,) or (N, C).

    The result has one row per class: class, support (its samples), precision, recall and F1 of what the task decides,
    and average_precision and AUROC of the probabilities; NaN where a score is undefined.
    """
    true = label.long() if task.multilabel else F.one_hot(label.long(), task.num_classes)
    chosen, support = task.decide(probabilities).long(), true.sum(0)
    shared = {"num_labels": task.num_classes, "average": "none", **FAST}
    decided = {"precision": multilabel_precision, "recall": multilabel_recall, "F1": multilabel_f1_score}
    scores = {name: score(chosen, true, zero_division=torch.nan, **shared) for name, score in decided.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No (positive|negative) samples")
        precision = multilabel_average_precision(probabilities, true, **shared)
        area = multilabel_auroc(probabilities, true, **shared)
    scores["average_precision"] = precision.where(support > 0, torch.nan)
    scores["AUROC"] = area.where((support > 0) & (support < len(true)), torch.nan)
    columns = {"support": support, **scores}
    return pd.DataFrame({"class": names} | {name: column.numpy() for name, column in columns.items()})


def confusion(task: Task, probabilities: Tensor, label: Tensor, names: Sequence[str]) -> pd.DataFrame:
    """Count the samples by true class (rows, named in the first column) and predicted class; one class per sample."""
    counts = multiclass_confusion_matrix(probabilities.argmax(dim=-1), label.long(), task.num_classes, **FAST)
    table = pd.DataFrame(counts.numpy(), columns=list(names))
    table.insert(0, "true", list(names), allow_duplicates=True)
    return table
