"""Scores by class against values computed by hand, and against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from clip.evaluation.classes import class_scores, confusion
from clip.modules.objectives import TASK_TYPES

NAN = np.nan


def test_several_labels_by_hand():
    """Four samples of three classes at the threshold 0.5; the last class neither occurs nor is predicted."""
    task = replace(TASK_TYPES["multilabel"], num_classes=3)
    probabilities = torch.tensor([[0.9, 0.5, 0.1], [0.6, 0.8, 0.2], [0.2, 0.7, 0.3], [0.1, 0.2, 0.4]])
    label = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]])
    table = class_scores(task, probabilities, label, ["a", "b", "c"]).set_index("class")
    assert table["support"].tolist() == [2, 2, 0]
    wanted = {
        "precision": [1 / 2, 1 / 2, NAN],
        "recall": [1 / 2, 1 / 2, NAN],  # 0.5 is not above the threshold
        "F1": [1 / 2, 1 / 2, NAN],
        "average_precision": [(1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2, NAN],
        "AUROC": [3 / 4, 2 / 4, NAN],
    }
    for name, values in wanted.items():
        assert table[name].tolist() == pytest.approx(values, nan_ok=True), name
    logits = probabilities.logit()
    scores = task.score(logits, label)
    assert scores["F1_Macro"] == pytest.approx(table["F1"].mean())
    assert scores["mAP"] == pytest.approx(table["average_precision"].mean())


def test_one_label_by_hand():
    """Of three "a", one is found and two are taken for "b"; of two "b", one is taken for "c", which does not occur."""
    task = replace(TASK_TYPES["multiclass"], num_classes=3)
    label = torch.tensor([0, 0, 0, 1, 1])
    rows = [[0.4, 0.35, 0.25], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]]
    probabilities = torch.tensor(rows)
    table = class_scores(task, probabilities, label, ["a", "b", "c"]).set_index("class")
    assert table["support"].tolist() == [3, 2, 0]
    assert table["precision"].tolist() == pytest.approx([1, 1 / 3, 0])
    assert table["recall"].tolist() == pytest.approx([1 / 3, 1 / 2, NAN], nan_ok=True)  # at the largest, not at 0.5
    assert table["F1"].tolist() == pytest.approx([1 / 2, 2 / 5, 0])
    counts = confusion(task, probabilities, label, ["a", "b", "c"])
    assert counts.columns.tolist() == ["true", "a", "b", "c"]
    assert counts.to_numpy().tolist() == [["a", 1, 2, 0], ["b", 0, 1, 1], ["c", 0, 0, 0]]
    wanted = sk.confusion_matrix(label, probabilities.argmax(1), labels=range(3))
    assert np.array_equal(counts.set_index("true"), wanted)
    assert task.score(probabilities.log(), label)["F1_Macro"] == pytest.approx(table["F1"].mean())


def test_two_classes_equal_scikit_learn():
    task, generator = TASK_TYPES["binary"], torch.Generator().manual_seed(0)
    label, logits = torch.randint(2, (60,), generator=generator), torch.randn(60, 2, generator=generator).round()
    probabilities = task.probabilities(logits)
    table = class_scores(task, probabilities, label, ["no", "yes"]).set_index("class")
    wanted = sk.precision_recall_fscore_support(label, probabilities.argmax(1))
    for name, values in zip(("precision", "recall", "F1", "support"), wanted, strict=True):
        assert table[name].tolist() == pytest.approx(values.tolist()), name
    assert table["AUROC"]["yes"] == pytest.approx(task.score(logits, label)["AUROC"])
    assert table["average_precision"]["yes"] == pytest.approx(sk.average_precision_score(label, probabilities[:, 1]))
    assert class_scores(task, probabilities, torch.ones(60), ["no", "yes"])["AUROC"].isna().all()
