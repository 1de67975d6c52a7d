"""Weights that are drawn again from the names of their parameters, as the reference numbers in tests/data are."""

import math
import zlib

import numpy as np
import torch


def normal(name, shape):
    """Draw from N(0, 1) with the CRC of the name as the seed."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def draw(name, shape):
    """Draw a parameter; the scale depends on the last part of its name and on its shape."""
    leaf, x = name.split(".")[-1], normal(name, shape)
    if leaf.endswith("magnitude") or (leaf == "weight" and len(shape) == 1):
        return 1 + 0.1 * x
    if leaf == "bias" or leaf.endswith("_bias"):
        return 0.02 * x
    if leaf == "logit_scale":
        return torch.tensor(math.log(1 / 0.07))
    if len(shape) == 4:
        return x / math.prod(shape[1:]) ** 0.5
    if len(shape) == 2 and leaf.endswith("weight") and "token_embedding" not in name:
        return x / shape[1] ** 0.5
    return x / shape[0] ** 0.5 if leaf in ("proj", "text_projection") else 0.1 * x


def sampled(gradient):
    """Return the norm of a gradient and at most 16 of its elements, as the files store it."""
    flat = gradient.detach().flatten()
    return np.array([flat.norm(), *flat[:: max(1, flat.numel() // 16)][:16]])


def assert_gradient(found, stored):
    """Compare a gradient with the stored elements, relative to its norm."""
    found = sampled(found)
    np.testing.assert_allclose(found, stored[: len(found)], atol=1e-5 * max(abs(stored[0]), 1e-8), rtol=0)
