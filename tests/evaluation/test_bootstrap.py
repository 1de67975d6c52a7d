"""Resampled scores against scikit-learn on the very samples that were drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from clip.evaluation import bootstrap
from clip.modules.objectives import TASKS

SAMPLES = 60


def predictions(task, samples=SAMPLES, seed=0):
    """Logits with ties, and labels of which every class occurs often enough."""
    generator = torch.Generator().manual_seed(seed)
    classes = TASKS[task].num_classes
    logits = torch.randn(samples, classes, generator=generator).mul(4).round() / 2
    labels = torch.randint(0, classes, (samples,), generator=generator)
    if task == "mmimdb":
        labels = (torch.rand(samples, classes, generator=generator) < 0.3).float()
        logits += 2 * labels - 1
    return logits, labels


def macro_f1(probabilities, labels):
    return f1_score(labels, probabilities > 0.5, average="macro", zero_division=np.nan)


def mean_ap(probabilities, labels):
    present = labels.any(0)
    return average_precision_score(labels[:, present], probabilities[:, present])


ORACLES = {
    ("mmimdb", "F1_Macro"): macro_f1,
    ("mmimdb", "mAP"): mean_ap,
    ("food101", "accuracy"): lambda p, y: accuracy_score(y, p.argmax(1)),
    ("hatememes", "accuracy"): lambda p, y: accuracy_score(y, p.argmax(1)),
    ("hatememes", "AUROC"): lambda p, y: roc_auc_score(y, p[:, 1]),
}


@pytest.mark.parametrize(("task", "name"), ORACLES)
def test_each_score_is_that_of_the_drawn_samples(task, name):
    logits, labels = predictions(task)
    weights = bootstrap.resample(SAMPLES, 60, seed=3)  # more than one block
    found = bootstrap.resampled(name, TASKS[task], logits, labels, weights)
    for drawn, score in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(SAMPLES), drawn)
        probabilities = TASKS[task].probabilities(logits[rows]).numpy()
        wanted = ORACLES[task, name](probabilities, labels[rows].long().numpy())
        assert score == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("task", "name"), ORACLES)
def test_weights_of_one_give_the_score_of_the_task(task, name):
    logits, labels = predictions(task)
    (score,) = bootstrap.resampled(name, TASKS[task], logits, labels, np.ones((1, SAMPLES), int))
    assert score == pytest.approx(TASKS[task].score(logits, labels)[name], abs=1e-6)


def test_per_class_scores():
    logits, labels = predictions("mmimdb")
    once = np.ones((1, SAMPLES), int)
    wanted = f1_score(labels.numpy(), (logits > 0).numpy(), average=None, zero_division=np.nan)
    found = bootstrap.class_f1(logits.sigmoid().numpy(), labels.numpy(), once)[0]
    np.testing.assert_allclose(found, wanted)
    answers, classes = np.eye(3)[[0, 1, 1, 0]], np.array([0, 0, 1, 1])
    shares = bootstrap.class_accuracy(answers, classes, np.ones((1, 4), int))[0]
    np.testing.assert_array_equal(shares, [0.5, 0.5, np.nan])


def test_a_resample_draws_as_many_samples_and_is_the_same_every_time():
    weights = bootstrap.resample(SAMPLES)
    assert weights.shape == (bootstrap.RESAMPLES, SAMPLES)
    assert (weights.sum(1) == SAMPLES).all()
    np.testing.assert_array_equal(weights, bootstrap.resample(SAMPLES))
    assert (weights != bootstrap.resample(SAMPLES, seed=1)).any()


def test_the_interval_holds_the_score_and_has_the_width_of_a_binomial():
    samples, share = 4000, 0.7
    logits = torch.eye(2)[(torch.arange(samples) >= share * samples).long()]
    labels = torch.zeros(samples, dtype=torch.long)
    weights = bootstrap.resample(samples)
    scores = bootstrap.resampled("accuracy", TASKS["hatememes"], logits, labels, weights)
    low, high = bootstrap.interval(scores)
    assert low < share < high
    wanted = 2 * 1.96 * (share * (1 - share) / samples) ** 0.5
    assert high - low == pytest.approx(wanted, rel=0.1)


@given(st.integers(0, 2**16), st.sampled_from(sorted(ORACLES)))
@settings(max_examples=15, deadline=None)
def test_a_method_differs_from_itself_by_exactly_nothing(seed, case):
    task, name = case
    logits, labels = predictions(task, seed=seed)
    weights = bootstrap.resample(SAMPLES, 20, seed)
    one, other = (bootstrap.resampled(name, TASKS[task], part, labels, weights) for part in (logits, logits.clone()))
    assert bootstrap.interval(one - other) == (0, 0)


def test_constant_scores_have_no_width_and_undefined_ones_no_interval():
    logits = torch.tensor([[3.0, -3.0]]).expand(SAMPLES, -1)
    weights = bootstrap.resample(SAMPLES, 50)
    labels = torch.zeros(SAMPLES, dtype=torch.long)
    task = TASKS["hatememes"]
    right = bootstrap.resampled("accuracy", task, logits, labels, weights)
    assert bootstrap.interval(right) == (1, 1)
    undefined = bootstrap.resampled("AUROC", task, logits, labels, weights)
    assert np.isnan(bootstrap.interval(undefined)).all()
