"""Deep Correlated Prompting on a frozen CLIP or ViLT, for pairs with a missing modality."""

import warnings
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip.inference.predictor import Predictor


def load(path: str | PathLike, vit: str | None = None) -> "Predictor":
    """Load a trained model, to predict with; on a GPU if there is one.

    Args:
        path: a checkpoint, ``epoch-….pt``, or the folder of a run.
        vit: where its frozen backbone is now; None for where it was in training. Its SHA-256 must
            be the one that the checkpoint names.

    Returns:
        What has ``predict(images, texts)``.

    Raises:
        UserError: there is no such checkpoint or backbone, or they do not belong together.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # by sacred 0.8.7
        from clip.inference.predictor import load_predictor  # only here: torch takes seconds

    return load_predictor(path, vit)
