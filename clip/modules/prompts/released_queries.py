"""Reproduce the dynamic queries of the released DCP code from the seed of its run.

The released code draws them as plain tensors when it builds the towers; they are not trained and not in its
checkpoints. Layers built before them draw from the same global generator, so the same constructors are called here in
the same order and their results discarded.
"""

import torch
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompts.base import INIT_STD, Sizes


def draw_queries(sizes: Sizes, length: int, seed: int) -> dict[str, Tensor]:
    """Draw the dynamic queries of both towers.

    Args:
        sizes: sizes of a CLIP (``ClipSizes``).
        length: dynamic prompts per sample, P.
        seed: seed of the run.

    Returns:
        Tower -> (3 missing cases, P, D).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = sizes.image_width
        nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        torch.randn(width), torch.randn(sizes.grid**2 + 1, width)  # class token, positions
        image = _first_block(width, length)
        for _ in range(sizes.image_layers - 1):
            _block(width)
        torch.randn(width, sizes.embed_dim)  # projection
        return {"image": image, "text": _first_block(sizes.text_width, length)}


def _block(width: int) -> None:
    nn.MultiheadAttention(width, width // HEAD_WIDTH)
    nn.Linear(width, 4 * width)
    nn.Linear(4 * width, width)


def _first_block(width: int, length: int) -> Tensor:
    _block(width)
    nn.MultiheadAttention(width, 1)
    drawn = (nn.init.normal_(torch.empty(length, 1, width), std=INIT_STD) for _ in CASES)
    return torch.stack([queries.squeeze(1) for queries in drawn])
