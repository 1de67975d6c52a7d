"""The two frozen towers of CLIP, and the layer loop that ViLT shares, where prompts enter.

The towers know nothing about prompt methods. They are given ``prompts``, a list over layers: the
entry of layer 0 (B, P, D) is put in front of the tokens; the entry of a later layer (B, Q, D)
replaces the first Q prompts before that layer's attention (paper, eq. 1); behind the end of the
list all prompts are carried on (eq. 2). An entry may be ``Prepended`` instead, which replaces nothing,
or a ``Prefix``: that layer's attention finds it in front of its keys and values, and the sequence
stays as it is. No prompts at all is the plain backbone.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

from clip.modules.layers import Prefix, Prepended, ResidualAttentionBlock

Prompts = list[Tensor | Prepended | Prefix]


class Transformer(nn.Module):
    """The blocks of one tower.

    Args:
        width: channels of a token.
        layers: number of blocks.
        activation: a key of ``layers.ACTIVATIONS``.
        causal: a position sees only itself and what stands in front of it (text).
        eps: of the norms.
    """

    def __init__(self, width: int, layers: int, activation: str, causal: bool, eps: float = 1e-5):
        super().__init__()
        self.causal = causal
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, activation, eps) for _ in range(layers))

    def compile_blocks(self) -> None:
        """Compile each block; they share their code, so that few graphs serve all layers."""
        for block in self.resblocks:
            block.compile(dynamic=True)  # the rows that have a modality differ in each batch

    def forward(self, x: Tensor, prompts: Prompts, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the blocks over [prompts, tokens] and read one token.

        Args:
            x: (B, L, D), the embedded tokens.
            prompts: see the head of this file.
            position: (B,), of the token that is read, the prompts not counted.
            mask: (B, L) bool, which tokens are no padding; None if all of them may be seen.

        Returns:
            (B, D).
        """
        last, length = self.resblocks[-1], x.shape[1]
        given = [*prompts, *[None] * (len(self.resblocks) - len(prompts))]
        for block, here, following in zip(self.resblocks, given, [*given[1:], None], strict=True):
            prefix = here if isinstance(here, Prefix) else None
            tokens = here.tokens if isinstance(here, Prepended) else here
            if isinstance(tokens, Tensor):
                x = torch.cat([tokens.to(x.dtype), x], dim=1)
            in_front = x.shape[1] - length
            seen = None if mask is None else pad(mask, (in_front, 0), value=True)[:, None]
            if block is not last:
                # Nobody reads the outputs that the next layer replaces.
                replaced = following.shape[1] if isinstance(following, Tensor) else 0
                x = block(x, self.causal, prefix, min(in_front, replaced), seen)
        return last.pool(x, position + in_front, self.causal, prefix, seen)


class VisionTransformer(nn.Module):
    """CLIP's image tower.

    Args:
        width: channels of a token, D.
        layers: number of blocks.
        patch: side of a patch in pixels.
        grid: patches along one side of the image.
        embed_dim: channels of the feature, E.
        activation: a key of ``layers.ACTIVATIONS``.
    """

    def __init__(self, *, width: int, layers: int, patch: int, grid: int, embed_dim: int, activation: str):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, activation, causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))

    def embed(self, image: Tensor) -> Tensor:
        """Turn (B, 3, H, W) into X_0 (B, 1 + patches, D): class token first, after ``ln_pre``."""
        patches = rearrange(self.conv1(image), "b d h w -> b (h w) d")
        head = self.class_embedding.to(patches.dtype).expand(image.shape[0], 1, -1)
        return self.ln_pre(torch.cat([head, patches], dim=1) + self.positional_embedding)

    def encode(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """Turn X_0 (B, L, D) and its prompts into the class token's feature (B, E)."""
        class_token = torch.zeros(tokens.shape[0], dtype=torch.long, device=tokens.device)
        return self.ln_post(self.transformer(tokens, prompts, class_token)) @ self.proj


class TextTransformer(nn.Module):
    """CLIP's text tower.

    Args:
        width: channels of a token, D.
        layers: number of blocks.
        context: number of positions (77 in every published CLIP).
        vocabulary: number of token ids; the last one ends a text.
        embed_dim: channels of the feature, E.
        activation: a key of ``layers.ACTIVATIONS``.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        context: int,
        vocabulary: int,
        embed_dim: int,
        activation: str,
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.transformer = Transformer(width, layers, activation, causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def embed(self, tokens: Tensor) -> Tensor:
        """Turn ids (B, 77) into X_0 (B, 77, D): embeddings and positions, no norm, with padding."""
        return self.token_embedding(tokens) + self.positional_embedding

    def encode(self, tokens: Tensor, prompts: Prompts, end: Tensor) -> Tensor:
        """Turn X_0 (B, L, D) and its prompts into the feature (B, E) of the end-of-text token.

        The tower is causal, so nothing behind a text's end reaches its feature: the caller may cut
        the batch there.

        Args:
            tokens: (B, L, D).
            prompts: see the head of this file.
            end: (B,), position of the first end-of-text token.
        """
        return self.ln_final(self.transformer(tokens, prompts, end)) @ self.text_projection
