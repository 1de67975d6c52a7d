"""How much a score depends on which test samples were drawn: the bootstrap, vectorised.

A resample is a vector of how often each sample was drawn. Every score here takes such weights, so
that scoring 1,000 resamples is a few matrix products and not 1,000 calls; and two methods are
compared on the same resamples (paired).
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from clip.modules.objectives import Task

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
BLOCK = 50  # resamples that are scored at once, which bounds the memory
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def resample(samples: int, times: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Draw resamples with replacement: how often each sample was drawn, (times, samples)."""
    shares = np.full(samples, 1 / samples)
    return np.random.default_rng(seed).multinomial(samples, shares, size=times)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide, and give NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _mean(scores: np.ndarray) -> np.ndarray:
    """Average over the classes (last) that have a score; NaN where none has."""
    defined = ~np.isnan(scores)
    return _divide(np.where(defined, scores, 0).sum(-1), defined.sum(-1))


def class_f1(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 at 0.5 of each class, (R, C); NaN for a class that neither occurs nor is named."""
    named, true = probabilities > 0.5, labels > 0
    hits = weights @ (named & true).astype(np.float64)
    both = weights @ (named.astype(np.float64) + true)
    return _divide(2 * hits, both)


def macro_f1(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of ``class_f1`` over the classes that have one, as ``objectives.MacroF1``."""
    return _mean(class_f1(probabilities, labels, weights))


def class_accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray):
    """Share of right answers among the samples of each class, (R, C); NaN for an absent class."""
    hot = np.eye(probabilities.shape[1])[labels]
    right = (probabilities.argmax(1) == labels)[:, None]
    return _divide(weights @ (hot * right), weights @ hot)


def accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of right answers."""
    return weights @ (probabilities.argmax(1) == labels) / weights.sum(1)


def _ranked(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple:
    """Sum weights of positives and of all samples at or above each threshold, (R, thresholds)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of the samples with equal scores
    drawn = weights[:, order]
    hits = np.cumsum(drawn * positive[order], axis=1)[:, last]
    return hits, np.cumsum(drawn, axis=1)[:, last]


def area(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; NaN where only one class was drawn."""
    hits, named = _ranked(score, positive, weights)
    false = named - hits
    start = np.zeros((len(weights), 1))
    heights = np.hstack([start, hits])
    trapezoids = np.diff(false, axis=1, prepend=start) * (heights[:, 1:] + heights[:, :-1]) / 2
    return _divide(trapezoids.sum(1), (hits[:, -1] * false[:, -1]).astype(np.float64))


def auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``area`` of the second of two classes."""
    return area(probabilities[:, 1], labels == 1, weights)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one class; NaN where it was not drawn."""
    hits, named = _ranked(score, positive, weights)
    gained = np.diff(hits, axis=1, prepend=np.zeros((len(weights), 1)))
    precision = np.divide(hits, named, out=np.zeros(hits.shape), where=named > 0)
    return _divide((gained * precision).sum(1), hits[:, -1].astype(np.float64))


def mean_ap(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean average precision over the classes that were drawn."""
    pairs = zip(probabilities.T, labels.T > 0, strict=True)
    return _mean(np.stack([average_precision(*pair, weights) for pair in pairs], axis=-1))


SCORES: dict[str, Score] = {  # by the names of ``objectives``; the others get no interval
    "F1_Macro": macro_f1,
    "mAP": mean_ap,
    "accuracy": accuracy,
    "AUROC": auroc,
}


def resampled(name: str, task: Task, logits: Tensor, labels: Tensor, weights: np.ndarray) -> np.ndarray:
    """Score a set of resamples.

    Args:
        name: key of ``SCORES``.
        task: turns logits into probabilities.
        logits: (N, C).
        labels: (N,) or (N, C).
        weights: (R, N), of ``resample``; ones for the score of the set itself.

    Returns:
        (R,), NaN where the score is undefined.
    """
    probabilities = task.probabilities(logits.float()).numpy()
    truth = labels.long().numpy()
    blocks = np.split(weights, range(BLOCK, len(weights), BLOCK))
    return np.concatenate([SCORES[name](probabilities, truth, block) for block in blocks])


def interval(scores: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Give the percentile interval of (R,) resampled scores; undefined ones do not count."""
    defined = scores[~np.isnan(scores)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
