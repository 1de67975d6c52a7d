"""Models and batches of published sizes with random weights."""

import numpy as np
import torch
from torch import Tensor

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.factory import init_model
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts.base import Sizes

VIT_B_16 = ClipSizes(768, 12, 16, 14, 512, 12, 77, 49408, 512)
CLASSES = 23
MEDIAN_WORDS, LOG_SPREAD = 52, 0.45  # log-normal length of a text, as MM-IMDb's plots have
Batch = tuple[Tensor, Tensor, Tensor]  # image, tokens, missing_type


def random_model(prompt_type: str = "dcp", sizes: Sizes = VIT_B_16) -> PromptedModel:
    """Build a model of these sizes with random weights; their type decides the backbone."""
    torch.manual_seed(0)
    return init_model(sizes, prompt_type, CLASSES)


def batches(
    missing_type: str,
    ratio: float,
    samples: int,
    size: int,
    side: int = VIT_B_16.image_size,
    context: int = VIT_B_16.context,
) -> list[Batch]:
    """Draw batches of which `ratio` of all samples are incomplete.

    Args:
        missing_type: "text", "image" or "both".
        ratio: missing rate.
        samples: number of samples in all batches together, a multiple of `size`.
        size: samples of a batch.
        side: width and height of an image in pixels.
        context: text positions.
    """
    missing = MissingConfig({"train": missing_type}, {"train": ratio})
    mask = draw_mask("benchmark", "train", np.zeros(samples, dtype=np.uint8), missing)
    generator = torch.Generator().manual_seed(1)
    out = []
    for rows in torch.arange(samples).split(size):
        cases = torch.from_numpy(mask[rows].astype("int64"))
        image = torch.randn(len(rows), 3, side, side, generator=generator)
        image[cases == MISSING_IMAGE] = 1  # as the released code fills it
        tokens = torch.stack([random_text(int(case) != MISSING_TEXT, context, generator) for case in cases])
        out.append((image, tokens, cases))
    return out


def random_text(present: bool, context: int, generator: torch.Generator) -> Tensor:
    """Draw the tokens (context,) of a text, or of an empty one."""
    words = MEDIAN_WORDS * torch.exp(LOG_SPREAD * torch.randn((), generator=generator))
    length = min(context - 2, int(words)) if present else 0
    start, end = VIT_B_16.vocabulary - 2, VIT_B_16.vocabulary - 1
    tokens = torch.zeros(context, dtype=torch.long)
    tokens[0], tokens[length + 1] = start, end
    tokens[1 : length + 1] = torch.randint(1, start, (length,), generator=generator)
    return tokens
