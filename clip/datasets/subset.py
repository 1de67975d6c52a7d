"""Choose a part of a split: stratified by label, and the same for a seed."""

import numpy as np
from torch import Tensor


def stratified_subset(labels: Tensor, limit: float, seed: int) -> np.ndarray:
    """Return the chosen rows in ascending order, about the same share of each class; a smaller subset is part of it.

    The labels are (N,) class numbers, or (N, C) zeros and ones, of which the rarest class of a row counts; ``limit`` is
    the number of rows or, as a float, their share.
    """
    if labels.ndim > 1:
        frequency = labels.sum(0)
        labels = (frequency.where(labels > 0, np.inf)).argmin(1)
    order = np.random.default_rng(seed).permutation(len(labels))
    classes, place = labels.numpy()[order], np.empty(len(order))
    for number in np.unique(classes):  # the rows of a class are spread evenly over (0, 1)
        of_class = np.flatnonzero(classes == number)
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    count = limit if isinstance(limit, int) else max(1, round(limit * len(labels)))
    return np.sort(order[np.argsort(place, kind="stable")[:count]])
