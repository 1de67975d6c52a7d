"""Transformer towers of CLIP that accept prompts at each layer; ViLT shares ``Transformer``.

The towers are independent of the prompt methods. ``prompts`` is a list with one entry per layer:

* a tensor: at layer 0, (B, P, D) is prepended to the tokens; at a later layer, (B, Q, D) replaces the
  first Q prompts before that layer's attention (paper, eq. 1); after the last entry, all prompts
  pass through the remaining layers (eq. 2);
* ``Prepended``: prompts that are prepended and replace nothing;
* ``Prefix``: keys and values prepended to those of that layer's attention; the sequence does not change;
* a function: maps the layer's ``LayerInput`` to one of the above, or to None: no fresh prompts.

With an empty list, a tower is the plain backbone. ``projections`` maps a layer to the input projection that replaces
the one of its attention. ``activation`` is a key of ``layers.ACTIVATIONS``.

A tower runs as a generator (``Run``), so that two towers can run in lock-step: it stops before each layer, yields the
``LayerInput``, and is sent that of the other tower, if there is one.
"""

from collections.abc import Callable, Generator, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.layers import InputProjection, LayerInput, Prefix, Prepended, PromptEntry, ResidualAttentionBlock

Prompts = list[PromptEntry | Callable[[LayerInput], PromptEntry | None]]
Projections = Mapping[int, InputProjection]
Run = Generator[LayerInput, LayerInput | None, Tensor]


def finish(run: Run) -> Tensor:
    """Run a tower through all its layers and return its output."""
    try:
        while True:
            next(run)
    except StopIteration as end:
        return end.value


def run_in_lock_step(first: Run, second: Run) -> list[Tensor]:
    """Run two towers layer by layer, the first one a layer ahead, and return their outputs."""
    runs, outputs = [first, second], [None, None]
    reached = [next(run) for run in runs]
    while any(output is None for output in outputs):
        for i, run in enumerate(runs):
            if outputs[i] is None:
                try:
                    reached[i] = run.send(reached[1 - i])
                except StopIteration as end:
                    outputs[i] = end.value
    return outputs


class Transformer(nn.Module):
    """Residual attention blocks of one tower, with a causal attention mask or without."""

    def __init__(self, width: int, layers: int, activation: str, causal: bool, eps: float = 1e-5):
        super().__init__()
        self.causal = causal
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, activation, eps) for _ in range(layers))

    def forward(
        self,
        x: Tensor,
        prompts: Prompts,
        position: Tensor | None = None,
        mask: Tensor | None = None,
        projections: Projections | None = None,
    ) -> Run:
        """Run the blocks over the prompts and the tokens (B, L, D); return one output token per sample, (B, D).

        ``position`` (B,) is the index of that token, not counting prompts; if None, return all tokens but the prompts,
        (B, L, D). ``mask`` (B, L) is False at padding; None means no padding.
        """
        length, projections, content = x.shape[1], projections or {}, mask
        if self.causal and mask is None:
            content = torch.arange(length, device=x.device) <= position[:, None]
        entries = [*prompts, *[None] * (len(self.resblocks) + 1 - len(prompts))]
        for i, block in enumerate(self.resblocks):
            entry, following, num_prompts = entries[i], entries[i + 1], x.shape[1] - length
            entering = LayerInput(x[:, num_prompts:], content)
            other = yield entering
            if callable(entry):
                entry = entry(entering._replace(other=other))
                if isinstance(entry, Tensor):
                    x = x[:, min(num_prompts, entry.shape[1]) :]
            prefix = entry if isinstance(entry, Prefix) else None
            tokens = entry.tokens if isinstance(entry, Prepended) else entry
            if isinstance(tokens, Tensor):
                x = torch.cat([tokens.to(x.dtype), x], dim=1)
            num_prompts = x.shape[1] - length
            padded = None if mask is None else pad(mask, (num_prompts, 0), value=True)[:, None]
            last, causal = block is self.resblocks[-1], self.causal and padded is None
            if padded is not None and self.causal:
                padded = padded & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            if last and position is not None:
                at = position + num_prompts
                if padded is not None and self.causal:
                    padded = padded.take_along_dim(at[:, None, None], dim=1)
                x = block.pool(x, at, causal, prefix, padded, projections.get(i))
            else:
                # Skip the outputs of prompts that the next layer replaces, or that nothing reads.
                replaced = following.shape[1] if isinstance(following, Tensor) else num_prompts * last
                x = block(x, causal, prefix, min(num_prompts, replaced), padded, projections.get(i))
        return x


class VisionTransformer(nn.Module):
    """Image tower of CLIP."""

    def __init__(self, sizes: ClipSizes, activation: str):
        super().__init__()
        width, std = sizes.image_width, sizes.image_width**-0.5
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(std * torch.randn(width))
        self.positional_embedding = nn.Parameter(std * torch.randn(sizes.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.image_layers, activation, causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(std * torch.randn(width, sizes.embed_dim))

    def embed(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to X_0 (B, 1 + patches, D): class token first, after ``ln_pre``."""
        patches = rearrange(self.conv1(image), "b d h w -> b (h w) d")
        class_token = self.class_embedding.to(patches.dtype).expand(image.shape[0], 1, -1)
        return self.ln_pre(torch.cat([class_token, patches], dim=1) + self.positional_embedding)

    def encode(self, tokens: Tensor, prompts: Prompts, projections: Projections | None = None) -> Run:
        """Map X_0 (B, L, D) and its prompts to the feature of the class token, (B, E)."""
        class_token = torch.zeros(tokens.shape[0], dtype=torch.long, device=tokens.device)
        x = yield from self.transformer(tokens, prompts, class_token, projections=projections)
        return self.ln_post(x) @ self.proj


class TextTransformer(nn.Module):
    """Text tower of CLIP."""

    def __init__(self, sizes: ClipSizes, activation: str):
        super().__init__()
        width = sizes.text_width
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context, width))
        self.transformer = Transformer(width, sizes.text_layers, activation, causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def embed(self, tokens: Tensor) -> Tensor:
        """Map ids (B, 77) to X_0 (B, 77, D): token plus positional embeddings, without a LayerNorm."""
        return self.token_embedding(tokens) + self.positional_embedding

    def encode(
        self, tokens: Tensor, prompts: Prompts, ids: Tensor, longest: int, projections: Projections | None = None
    ) -> Run:
        """Map X_0 (B, 77, D) and its prompts to the feature of the first end-of-text token, (B, E).

        ``ids`` (B, 77) are those of the tokens. The tower is causal, so tokens after the end of a text do not affect
        its feature: the batch is truncated after the longest text.
        """
        x, end = tokens[:, :longest], ids.argmax(dim=1)  # the id of the end of a text is the largest of all
        x = yield from self.transformer(x, prompts, end, projections=projections)
        return self.ln_final(x) @ self.text_projection


class StretchedTextTransformer(TextTransformer):
    """CLIP's text tower, read at its last position, of padding, with positions stretched to its prompts."""

    def __init__(self, sizes: ClipSizes, activation: str, num_prompts: int):
        super().__init__(sizes, activation)
        self.num_prompts = num_prompts

    def embed(self, tokens: Tensor) -> Tensor:
        """Map ids (B, 77) to X_0 (B, 77, D) with CLIP's positions; the padding is end-of-text tokens."""
        padding = torch.arange(tokens.shape[1], device=tokens.device) > tokens.argmax(1, keepdim=True)
        return super().embed(torch.where(padding, tokens.amax(1, keepdim=True), tokens))

    def encode(
        self, tokens: Tensor, prompts: Prompts, ids: Tensor, longest: int, projections: Projections | None = None
    ) -> Run:
        """Map X_0 (B, 77, D) and its prompts to the feature of the last position, (B, E).

        It sees the prompts and the whole text, but no padding. Without prompts, positions are not stretched.
        """
        (length, table), front = (ids.shape[1], self.positional_embedding), self.num_prompts * bool(prompts)
        stretched = interpolate(table.T[None], length + front, mode="linear")[0].T
        text = torch.arange(length, device=ids.device) <= ids.argmax(1, keepdim=True)
        last = torch.full((len(ids),), length - 1, device=ids.device)
        x = tokens + (stretched[front:] - table)
        x = yield from self.transformer(x, prompts, last, text, projections)
        return self.ln_final(x) @ self.text_projection
