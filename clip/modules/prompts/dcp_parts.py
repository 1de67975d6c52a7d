"""What deep correlated prompting is made of, and the paper's alternatives to each part.

The tables name what the ablations exchange (Tables 1-3); the method itself is in ``dcp.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Attention, bottleneck
from clip.modules.prompts.base import IMAGE, TEXT, index_by_case, prompt_parameter

EACH_CASE = (COMPLETE, MISSING_TEXT, MISSING_IMAGE)


@dataclass(frozen=True)
class Formulas:
    """Where the released code and the paper's equations part.

    Attributes:
        norm_first: the generator's norm stands in front of its map (released), not behind (eq. 4).
        free_input: the correlated prompts of layer 0 are parameters (eq. 3), not generated.
        initial: tower -> row of its initial correlated prompts for each missing case; released: one
            for present, one for missing; paper: one a case.
        refine: a norm, an MLP and a norm follow the dynamic prompts' attention (eq. 7).
    """

    norm_first: bool
    free_input: bool
    initial: dict[str, tuple[int, ...]]
    refine: bool


_LACKS = {IMAGE: tuple(int(case == MISSING_IMAGE) for case in EACH_CASE),
          TEXT: tuple(int(case == MISSING_TEXT) for case in EACH_CASE)}  # fmt: skip
_OWN_ROW = {IMAGE: EACH_CASE, TEXT: EACH_CASE}
FORMULAS = {
    "released": Formulas(norm_first=True, free_input=False, initial=_LACKS, refine=False),
    "paper": Formulas(norm_first=False, free_input=True, initial=_OWN_ROW, refine=True),
}


# (channels in, channels out, reduction of the hidden width) -> a map, for F and for G
MAPS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "mlp": bottleneck,
    "fc": lambda width_in, width_out, _: nn.Linear(width_in, width_out),
}
SOURCES: dict[str, Callable[[str], tuple[str, ...]]] = {  # tower -> whose prompts make its next
    "both": lambda tower: (IMAGE, TEXT),  # eq. 5
    "own": lambda tower: (tower,),  # eq. 3
}


def correlated_generator(inner: nn.Module, widths: tuple[int, int], norm_first: bool) -> nn.Module:
    """Make F of eq. 4 and 5: prompts (…, widths[0]) to a tower's next prompts (…, widths[1])."""
    if norm_first:
        return nn.Sequential(nn.LayerNorm(widths[0]), inner)
    return nn.Sequential(inner, nn.LayerNorm(widths[1]))


class DynamicPrompts(nn.Module):
    """Prompts of one sample, read from its own tokens (eq. 6).

    Faithful: one single-head cross-attention of learned queries, which turns any number of tokens
    into P prompts; it sees all positions of a text, padding included.

    Args:
        length: prompts per sample, P.
        width: channels, D.
        refine: a norm, a bottleneck MLP and a norm follow (eq. 7).
        fixed: (3, P, D), queries that do not train; None for learned ones.
    """

    def __init__(self, length: int, width: int, refine: bool, fixed: Tensor | None):
        super().__init__()
        if fixed is None:
            self.queries = prompt_parameter(len(CASES), length, width)
        else:
            self.register_buffer("queries", fixed)
        self.attention = Attention(width, heads=1)
        self.refine = nn.Sequential()
        if refine:
            parts = nn.LayerNorm(width), bottleneck(width, width), nn.LayerNorm(width)
            self.refine.extend(parts)

    def forward(self, tokens: Tensor, missing_type: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn X_0 (B, L, D), of which (B, L) may be seen, and the cases (B,) into (B, P, D)."""
        seen = None if mask is None else mask[:, None]
        return self.refine(self.attention(index_by_case(self.queries, missing_type), tokens, mask=seen))


class PooledPrompts(nn.Module):
    """Prompts of one sample: its tokens pooled to P positions, then projected (Table 2).

    Args:
        pool: ((B, D, L), P) -> (B, D, P).
        length: prompts per sample and layer, P.
        width: channels, D.
        layers: with prompts; each has a projection of its own.
    """

    def __init__(self, pool: Callable[[Tensor, int], Tensor], length: int, width: int, layers: int):
        super().__init__()
        self.pool, self.length, self.layers = pool, length, layers
        self.projection = nn.Linear(width, layers * width)

    def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
        """Turn X_0 (B, L, D), all of it read, into (B, layers P, D), layer by layer."""
        pooled = self.pool(rearrange(tokens, "b l d -> b d l"), self.length)
        made = self.projection(rearrange(pooled, "b d p -> b p d"))
        return rearrange(made, "b p (n d) -> b (n p) d", n=self.layers)


def minimum_pool(x: Tensor, length: int) -> Tensor:
    """Pool (B, D, L) to the least of each stretch, (B, D, length)."""
    return -F.adaptive_max_pool1d(-x, length)


def _pooled(pool: Callable[[Tensor, int], Tensor]) -> Callable[..., nn.Module]:
    return lambda length, width, layers, **_: PooledPrompts(pool, length, width, layers)


# (length, width, layers, refine, fixed) -> (tokens, missing_type) -> (B, layers P, D)
READERS: dict[str, Callable[..., nn.Module]] = {
    "attention": lambda length, width, layers, **more: DynamicPrompts(layers * length, width, **more),
    "max": _pooled(F.adaptive_max_pool1d),
    "min": _pooled(minimum_pool),
    "avg": _pooled(F.adaptive_avg_pool1d),
}
