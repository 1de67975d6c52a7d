"""Building blocks shared by the backbones and the prompt methods; imports nothing of this project.

Parameter names are those of OpenAI's CLIP, so that loading a checkpoint is checking, not translating.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

HEAD_WIDTH = 64  # of every published CLIP and ViLT: heads = width // 64
INIT_STD = 0.02  # of prompts and heads


class QuickGELU(nn.Module):
    """Sigmoid form of GELU that OpenAI's weights were trained with, x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return F.silu(1.702 * x) / 1.702  # the product keeps two tensors for backward


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class InputProjection(NamedTuple):
    """Map of an attention's input to queries, keys and values, in this order."""

    weight: Tensor  # (3 D, D)
    bias: Tensor  # (3 D,)


class Prefix(NamedTuple):
    """Prefix keys and values of one layer's attention (prefix tuning); they skip the projections."""

    keys: Tensor  # (B, P, D), all heads side by side
    values: Tensor  # (B, P, D)


class Prepended(NamedTuple):
    """Prompts that are prepended to those of earlier layers instead of replacing them."""

    tokens: Tensor  # (B, P, D)


PromptEntry = Tensor | Prepended | Prefix  # the prompts of one layer


class LayerInput(NamedTuple):
    """Tokens that enter a layer, without prompts.

    Attributes:
        tokens: (B, L, D).
        content: which of them are not padding, (B, L) bool; None for all.
        other: the same of the other tower, which runs layer by layer with this one; the text tower is one layer
            ahead of the image tower. None in a single stream.
    """

    tokens: Tensor
    content: Tensor | None
    other: "LayerInput | None" = None

    def mean(self, padding: bool = False) -> Tensor:
        """Return the mean token of each sample, (B, D), with padding or without."""
        if padding or self.content is None:
            return self.tokens.mean(1)
        content = self.content[..., None].to(self.tokens.dtype)
        return (self.tokens * content).sum(1) / content.sum(1)


class Attention(nn.Module):
    """Multi-head attention with the parameters and the initial values of ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    @property
    def projection(self) -> InputProjection:
        """Return the layer's own input projection."""
        return InputProjection(self.in_proj_weight, self.in_proj_bias)

    def forward(
        self,
        query: Tensor,
        context: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        prefix: Prefix | None = None,
        drop_first: int = 0,
        projection: InputProjection | None = None,
    ) -> Tensor:
        """Compute attention from the query to the context, (B, L - drop_first, D).

        Args:
            query: (B, L, D).
            context: (B, S, D), or None for self-attention.
            causal: position i attends to positions 0..i only (self-attention).
            mask: positions of the context that each query may attend to, (B, L, S) bool; None for all.
            prefix: keys and values that every query attends to, whatever the mask.
            drop_first: number of leading positions whose output is not needed.
            projection: used in place of ``in_proj_weight`` and ``in_proj_bias``.
        """
        (weight, bias), width = projection or self.projection, query.shape[-1]
        if context is None:
            q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            q = F.linear(query, weight[:width], bias[:width])
            k, v = F.linear(context, weight[width:], bias[width:]).chunk(2, dim=-1)
        if prefix is not None:
            k = torch.cat([prefix.keys.to(k.dtype), k], dim=1)
            v = torch.cat([prefix.values.to(v.dtype), v], dim=1)
            if causal:
                mask = torch.ones(1, q.shape[1], q.shape[1], dtype=torch.bool, device=q.device).tril()
            mask = None if mask is None else F.pad(mask, (prefix.keys.shape[1], 0), value=True)
            causal = False  # the mask says it
        q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=self.heads) for x in (q, k, v))
        mask = None if mask is None else rearrange(mask, "b l s -> b 1 l s")
        if query.shape[0]:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        else:
            mixed = q @ k.mT @ v  # not every GPU kernel takes an empty batch
        return self.out_proj(rearrange(mixed[:, :, drop_first:], "b h l d -> b l (h d)"))


class ResidualAttentionBlock(nn.Module):
    """One pre-norm transformer block; ``activation`` is a key of ``ACTIVATIONS``, ``eps`` is that of the norms."""

    def __init__(self, width: int, activation: str, eps: float = 1e-5):
        super().__init__()
        self.attn = Attention(width, width // HEAD_WIDTH)
        self.ln_1 = nn.LayerNorm(width, eps)
        c_fc, c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=c_fc, gelu=ACTIVATIONS[activation](), c_proj=c_proj))
        self.ln_2 = nn.LayerNorm(width, eps)

    def forward(
        self,
        x: Tensor,
        causal: bool,
        prefix: Prefix | None,
        drop_first: int,
        mask: Tensor | None,
        projection: InputProjection | None,
    ) -> Tensor:
        """Map (B, L, D) to (B, L - drop_first, D); the leading outputs are not computed.

        For the arguments, see ``Attention.forward``. ``mask`` must be None if ``causal`` is True.
        """
        x = x[:, drop_first:] + self.attn(self.ln_1(x), None, causal, mask, prefix, drop_first, projection)
        return x + self.mlp(self.ln_2(x))

    def pool(
        self,
        x: Tensor,
        position: Tensor,
        causal: bool,
        prefix: Prefix | None,
        mask: Tensor | None,
        projection: InputProjection | None,
    ) -> Tensor:
        """Compute the output at one position (B,) per sample, (B, D): all that is read of the last block."""
        rows = torch.arange(x.shape[0], device=x.device)
        if causal:
            mask = (torch.arange(x.shape[1], device=x.device) <= position[:, None])[:, None]  # (B, 1, L)
        context = self.ln_1(x)
        query = context[rows, position, None]  # (B, 1, D)
        attended = self.attn(query, context, mask=mask, prefix=prefix, projection=projection)
        x = x[rows, position] + attended[:, 0]
        return x + self.mlp(self.ln_2(x))


def bottleneck(
    width_in: int, width_out: int, reduction: int = 16, activation: type[nn.Module] = nn.GELU
) -> nn.Sequential:
    """Build the paper's bottleneck MLP Fc(GELU(Fc(.))), its hidden width 1/16 (eq. 4 and 8)."""
    hidden = max(1, width_in // reduction)
    return nn.Sequential(nn.Linear(width_in, hidden), activation(), nn.Linear(hidden, width_out))


def init_linear(width_in: int, width_out: int) -> nn.Linear:
    """Build a linear layer of a head as published: weights from N(0, 0.02), biases zero."""
    layer = nn.Linear(width_in, width_out)
    nn.init.normal_(layer.weight, std=INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer
