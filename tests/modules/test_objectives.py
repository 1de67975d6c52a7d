"""Metrics against scikit-learn, losses against their formulas."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from clip.evaluation.report import metrics_text
from clip.modules.objectives import TASK_TYPES, TASKS

BATCHES = 3


def scores(task, logits, label):
    """Feed the metrics in uneven batches, as a loop does."""
    collection = task.collection()
    for part in torch.arange(len(label)).tensor_split(BATCHES):
        collection.update(task.probabilities(logits[part]), label[part])
    found = {name: float(value) for name, value in collection.compute().items()}
    assert found == pytest.approx(task.score(logits, label))
    return found


def multilabel(seed=0, size=60):
    """Rare genres, one that never occurs, films without a genre, films with no guess."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(size, 23, generator=generator) < torch.linspace(0.02, 0.5, 23)).long()
    label[:, 7] = 0
    label[::9] = 0
    logits = torch.randn(size, 23, generator=generator) + 1.5 * label - 0.8
    logits[1::10] = -4.0
    logits[:, 7] = -4.0
    return logits, label


def test_multilabel_scores_equal_scikit_learn():
    task = TASKS["mmimdb"]
    logits, label = multilabel()
    found = scores(task, logits, label)
    chance = logits.sigmoid().numpy()
    for average in ("micro", "macro", "weighted", "samples"):
        absent = np.nan if average == "macro" else 0  # macro leaves out what never occurs
        wanted = sk.f1_score(label, chance > 0.5, average=average, zero_division=absent)
        assert found[f"F1_{average.title()}"] == pytest.approx(wanted, abs=1e-6)
    occurring = [sk.average_precision_score(label[:, c], chance[:, c])
                 for c in range(23) if label[:, c].any()]  # fmt: skip
    assert found["mAP"] == pytest.approx(np.mean(occurring), abs=1e-6)


def test_scores_do_not_depend_on_whether_logits_look_like_probabilities():
    """Logits inside [0, 1] are all above 0.5 as probabilities: every genre is named."""
    task = TASKS["mmimdb"]
    label = multilabel()[1]
    logits = torch.full(label.shape, 0.3)
    wanted = sk.f1_score(label, np.ones_like(label), average="micro")
    assert task.score(logits, label)["F1_Micro"] == pytest.approx(wanted, abs=1e-6)


def test_accuracy_equals_scikit_learn():
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(101, (300,), generator=generator)
    logits = torch.randn(300, 101, generator=generator)
    logits[torch.arange(300), label] += 2
    wanted = sk.accuracy_score(label, logits.argmax(1))
    assert scores(TASKS["food101"], logits, label)["accuracy"] == pytest.approx(wanted)


def test_auroc_equals_scikit_learn_with_ties():
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(2, (200,), generator=generator)
    logits = torch.stack([torch.zeros(200), (torch.randn(200, generator=generator) + label).round()], 1)
    found = scores(TASKS["hatememes"], logits, label)
    assert found["AUROC"] == pytest.approx(sk.roc_auc_score(label, logits[:, 1]), abs=1e-6)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(label, logits.argmax(1)))


def test_floor_is_the_score_of_constant_answers():
    label = multilabel()[1]
    share = label.float().mean(0).numpy()[label.any(0)]
    found = TASKS["mmimdb"].constant_baseline(label.float())
    assert found["F1_Macro"] == pytest.approx(np.mean(2 * share / (1 + share)), abs=1e-6)
    assert found["mAP"] == pytest.approx(share.mean(), abs=1e-6)
    dishes = torch.tensor([3, 3, 7, 5])
    found = TASKS["food101"].constant_baseline(dishes)
    wanted = {"accuracy": 0.5, "balanced_accuracy": 1 / 3, "F1_Macro": 2 / 9}  # F1 of class 3: 2/3, of 5 and 7: 0
    assert found == pytest.approx(wanted)
    wanted = {"AUROC": 0.5, "accuracy": 2 / 3, "balanced_accuracy": 0.5, "F1_Macro": 0.4}
    assert TASKS["hatememes"].constant_baseline(torch.tensor([0, 0, 1])) == pytest.approx(wanted)


def test_scores_of_labels_that_are_all_the_same_are_stated_as_undefined():
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(4))
    found = TASKS["hatememes"].score(logits, torch.ones(6, dtype=torch.long))
    assert np.isnan(found["AUROC"])
    assert "AUROC" in metrics_text(found)
    assert "undefined" in metrics_text(found)
    assert np.isnan(TASKS["mmimdb"].score(torch.randn(4, 23), torch.zeros(4, 23))["mAP"])


def test_losses_are_means_over_the_batch():
    logits, label = multilabel()
    chance = logits.sigmoid()
    wanted = -torch.where(label == 1, chance, 1 - chance).log().mean()
    torch.testing.assert_close(TASKS["mmimdb"].loss(logits, label.float()), wanted)
    names = torch.arange(5) % 2
    two = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    wanted = -two.log_softmax(1)[torch.arange(5), names].mean()
    torch.testing.assert_close(TASKS["hatememes"].loss(two, names), wanted)


def test_single_label_metrics_equal_scikit_learn():
    torch.manual_seed(0)
    label, logits = torch.randint(0, 4, (200,)), torch.randn(200, 6)  # two classes do not occur
    predicted = logits.argmax(1)
    found = replace(TASK_TYPES["multiclass"], num_classes=6).score(logits, label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predicted classes that do not occur
        wanted = {
            "accuracy": sk.accuracy_score(label, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(label, predicted),
            "F1_Macro": sk.f1_score(label, predicted, average="macro"),
        }
    assert found == pytest.approx(wanted, abs=1e-6)


def test_balanced_loss_by_hand():
    """Three samples of class 0, one of class 1: weights 4 / (2 * 3) and 4 / (2 * 1)."""
    logits, label = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    single = TASK_TYPES["binary"].balanced_loss(torch.tensor([0, 0, 0, 1]))
    wanted = (2 / 3 * math.log(1 + math.exp(-1)) + 2 * math.log(1 + math.exp(-2))) / 2
    assert single(logits, label).item() == pytest.approx(wanted, rel=1e-6)
    several = replace(TASK_TYPES["multilabel"], num_classes=2)
    loss = several.balanced_loss(torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]]))  # positives weigh 3 and 1
    wanted = (3 * math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(wanted, rel=1e-6)
