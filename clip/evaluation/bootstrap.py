"""Bootstrap over test samples, vectorised over the resamples.

A resample is a vector of the number of times that each sample was drawn. Scores take these counts as weights, so
1,000 resamples are a few matrix products and methods are compared on the same resamples (paired bootstrap).
"""

import numpy as np
from torch import Tensor

from clip.modules.objectives import Task

RESAMPLES = 1000
BLOCK = 50  # resamples scored at once; bounds the memory


def resample(samples: int, times: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw resamples with replacement: how often each sample was drawn, (times, samples)."""
    return np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), size=times)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _mean(scores: np.ndarray) -> np.ndarray:
    """Average the defined scores over the last dimension; NaN where none is defined."""
    defined = ~np.isnan(scores)
    return _divide(np.where(defined, scores, 0).sum(-1), defined.sum(-1))


def class_f1(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, (R, C), at 0.5 for several labels; NaN for a class neither present nor predicted."""
    predicted, true = probabilities > 0.5, labels > 0
    if labels.ndim == 1:
        one_hot = np.eye(probabilities.shape[1], dtype=bool)
        predicted, true = one_hot[probabilities.argmax(1)], one_hot[labels]
    hits = weights @ (predicted & true).astype(np.float64)
    return _divide(2 * hits, weights @ (predicted.astype(np.float64) + true))


def class_accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the accuracy within each class, (R, C); NaN for a class without samples."""
    one_hot = np.eye(probabilities.shape[1])[labels]
    return _divide(weights @ (one_hot * (probabilities.argmax(1) == labels)[:, None]), weights @ one_hot)


def _counts(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count positives and all samples at or above each threshold, (R, 1 + thresholds) each; the first column is 0."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # last of the samples with equal scores
    drawn = weights[:, order]
    counts = (np.cumsum(each, axis=1)[:, last] for each in (drawn * positive[order], drawn))
    true, every = (np.pad(count, ((0, 0), (1, 0))).astype(np.float64) for count in counts)
    return true, every


def auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of class 1, (R,); NaN where only one class was drawn."""
    true, every = _counts(probabilities[:, 1], labels == 1, weights)
    false = every - true
    return _divide(np.trapezoid(true, false, axis=1), true[:, -1] * false[:, -1])


def class_ap(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, (R, C); NaN for a class that was not drawn."""
    scores = []
    for score, positive in zip(probabilities.T, labels.T > 0, strict=True):
        true, every = _counts(score, positive, weights)
        precision = np.divide(true, every, out=np.zeros_like(true), where=every > 0)
        scores.append(_divide((np.diff(true, axis=1) * precision[:, 1:]).sum(1), true[:, -1]))
    return np.stack(scores, axis=-1)


SCORES = {  # metrics of ``objectives`` that can be resampled
    "F1_Macro": lambda *arrays: _mean(class_f1(*arrays)),
    "mAP": lambda *arrays: _mean(class_ap(*arrays)),
    "balanced_accuracy": lambda *arrays: _mean(class_accuracy(*arrays)),
    "accuracy": lambda p, y, weights: weights @ (p.argmax(1) == y) / weights.sum(1),
    "AUROC": auroc,
}


def resampled(name: str, task: Task, logits: Tensor, labels: Tensor, weights: np.ndarray) -> np.ndarray:
    """Return the score of logits (N, C) for each resample, a row of the weights (R, N); NaN where it is undefined."""
    probabilities, truth = task.probabilities(logits.float()).numpy(), labels.long().numpy()
    blocks = np.split(weights, range(BLOCK, len(weights), BLOCK))
    return np.concatenate([SCORES[name](probabilities, truth, block) for block in blocks])


def interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of the defined scores; NaN if none is defined."""
    if np.isnan(scores).all():
        return np.nan, np.nan
    low, high = np.nanquantile(scores, [0.025, 0.975])
    return float(low), float(high)
