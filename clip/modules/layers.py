"""Building blocks shared by the backbones and the prompt methods.

A leaf: it imports nothing of ours, so every other file may import it. Parameter names are those of
OpenAI's CLIP, so that loading a checkpoint is checking, not translating.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

HEAD_WIDTH = 64  # of every published CLIP and ViLT: heads = width // 64


class QuickGELU(nn.Module):
    """The sigmoid form of GELU that OpenAI's weights were trained with, x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return F.silu(1.702 * x) / 1.702  # the product keeps two tensors for backward


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Prefix(NamedTuple):
    """What an attention finds in front of its own keys and values; it skips their projections.

    Attributes:
        keys: (B, P, D), all heads side by side.
        values: (B, P, D).
    """

    keys: Tensor
    values: Tensor


class Prepended(NamedTuple):
    """Prompts that are put in front of those of earlier layers instead of replacing them.

    Attributes:
        tokens: (B, P, D).
    """

    tokens: Tensor


class Attention(nn.Module):
    """Multi-head attention with the parameters and the start of ``nn.MultiheadAttention``.

    Args:
        width: channels of queries, keys and values.
        heads: number of heads; each gets ``width // heads`` channels.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        context: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        prefix: Prefix | None = None,
        drop_first: int = 0,
    ) -> Tensor:
        """Let the query attend to the context, or to itself where there is none.

        Args:
            query: (B, L, D).
            context: (B, S, D), or None for self-attention.
            causal: position i sees positions 0..i only (self-attention).
            mask: (B, L, S) bool, what each query may see of the context; None for all.
            prefix: what every query sees besides, masks or not.
            drop_first: as many of the first queries have no reader, and no output is made for them.

        Returns:
            (B, L - drop_first, D).
        """
        q, k, v = self._project(query, context)
        if prefix is not None:
            in_front = prefix.keys.shape[1]
            k = torch.cat([prefix.keys.to(k.dtype), k], dim=1)
            v = torch.cat([prefix.values.to(v.dtype), v], dim=1)
            if causal:
                mask = causal_mask(q.shape[1], q.device)
            mask = None if mask is None else F.pad(mask, (in_front, 0), value=True)
            causal = False  # the mask says it
        q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=self.heads) for x in (q, k, v))
        mask = None if mask is None else rearrange(mask, "b l s -> b 1 l s")
        if query.shape[0]:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        else:
            mixed = q @ k.mT @ v  # not every GPU kernel takes a batch of none
        return self.out_proj(rearrange(mixed[:, :, drop_first:], "b h l d -> b l (h d)"))

    def _project(self, query: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        if context is None:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        width = query.shape[-1]
        q_weight, kv_weight = self.in_proj_weight.split([width, 2 * width])
        q_bias, kv_bias = self.in_proj_bias.split([width, 2 * width])
        k, v = F.linear(context, kv_weight, kv_bias).chunk(2, dim=-1)
        return F.linear(query, q_weight, q_bias), k, v


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Make (1, length, length) bool: position i sees positions 0..i."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()


class ResidualAttentionBlock(nn.Module):
    """One pre-norm transformer block.

    Args:
        width: channels.
        activation: a key of ``ACTIVATIONS``.
        eps: of the norms.
    """

    def __init__(self, width: int, activation: str, eps: float = 1e-5):
        super().__init__()
        self.attn = Attention(width, width // HEAD_WIDTH)
        self.ln_1 = nn.LayerNorm(width, eps)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=ACTIVATIONS[activation](),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width, eps)

    def forward(
        self,
        x: Tensor,
        causal: bool,
        prefix: Prefix | None = None,
        drop_first: int = 0,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map (B, L, D) to (B, L - drop_first, D): the first outputs, if drop_first, are not made.

        ``mask``, (B, 1, L), is what may be seen where not all is; then nothing is causal.
        """
        normed = self.ln_1(x)
        read = self.attn(normed, None, causal, mask, prefix, drop_first)
        x = x[:, drop_first:] + read
        return x + self.mlp(self.ln_2(x))

    def pool(
        self,
        x: Tensor,
        position: Tensor,
        causal: bool,
        prefix: Prefix | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the output at one position only, which is all that is read of the last block.

        Args:
            x: (B, L, D).
            position: (B,), whose output is wanted.
            causal: as in ``forward``.
            prefix: as in ``forward``.
            mask: as in ``forward``.

        Returns:
            (B, D).
        """
        rows = torch.arange(x.shape[0], device=x.device)
        if causal:
            place = torch.arange(x.shape[1], device=x.device)
            mask = (place <= position[:, None])[:, None]  # (B, 1, L)
        context = self.ln_1(x)
        query = context[rows, position, None]  # (B, 1, D)
        read = self.attn(query, context, mask=mask, prefix=prefix)
        one = x[rows, position] + read[:, 0]
        return one + self.mlp(self.ln_2(one))


def bottleneck(width_in: int, width_out: int, reduction: int = 16) -> nn.Sequential:
    """Make the paper's bottleneck MLP Fc(GELU(Fc(.))), its hidden width 1/16 (eq. 4 and 8)."""
    hidden = max(1, width_in // reduction)
    return nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out))
