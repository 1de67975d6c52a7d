"""Deep Correlated Prompting on a frozen CLIP or ViLT, for pairs of image and text with a missing modality."""

import warnings
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip.inference.predictor import Predictor


def load(path: str | PathLike, vit: str | None = None, plugins: str | Sequence[str] = ()) -> "Predictor":
    """Load a trained model for inference, on a GPU if there is one.

    Args:
        path: checkpoint, ``epoch-….pt``, or folder of a run.
        vit: weights of the frozen backbone; None for where they were in training, by the
            path as given, then by the absolute one. Their SHA-256 must be that of the checkpoint.
        plugins: module or modules that the run was trained with, as on its command line.

    Returns:
        An object with ``predict(images, texts)`` and ``encode(images, texts)``.

    Raises:
        UserError: the checkpoint or its backbone does not exist, or they do not match.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # by sacred 0.8.7
        import torch  # only here: the imports take seconds

        from clip.cli.schema import make_config
        from clip.inference.predictor import Predictor

    settings = {"load_path": str(path), "num_gpus": min(1, torch.cuda.device_count())}
    settings |= {} if vit is None else {"vit": str(vit)}
    settings["plugins"] = [plugins] if isinstance(plugins, str) else [*plugins]
    return Predictor.from_config(make_config(settings, set(settings)))
