"""Prompted CoCa: CLIP's two towers with an attentional pooler on the image and a class token behind the text.

Written from open_clip's ``coca_model.py``; CoCa's decoder is not needed for features and not loaded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.vision_transformer_prompts import Projections, Prompts, Run, TextTransformer, VisionTransformer


@dataclass(frozen=True)
class CocaSizes(ClipSizes):
    """Sizes of a CoCa; ``context`` does not count the class token behind the text."""

    queries: int = 256  # of the attentional pooler

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "CocaSizes":
        """Read the sizes of a state dict under open_clip's names."""
        text = {name.removeprefix("text."): tensor for name, tensor in state.items() if name.startswith("text.")}
        sizes = ClipSizes.of(state | text)
        context = sizes.context - 1  # the last position is that of the class token
        return cls(**(vars(sizes) | {"context": context}), queries=len(state["visual.attn_pool.query"]))


class AttentionalPooler(nn.Module):
    """Attention of learned queries to all tokens of an image, with the parameter names of open_clip."""

    def __init__(self, sizes: CocaSizes):
        super().__init__()
        width, context = sizes.embed_dim, sizes.image_width
        self.query = nn.Parameter(torch.randn(sizes.queries, width))
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, kdim=context, vdim=context, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(context)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, D) to the output of the first query, (B, E): only it reaches the feature."""
        query, context = self.ln_q(self.query[:1]), self.ln_k(x)
        return self.attn(query.expand(len(x), -1, -1), context, context, need_weights=False)[0][:, 0]


class CocaImageTower(VisionTransformer):
    """Image tower of CoCa: CLIP's, with a pooler before ``ln_post`` in place of the class token."""

    def __init__(self, sizes: CocaSizes, activation: str):
        super().__init__(sizes, activation)
        self.attn_pool = AttentionalPooler(sizes)
        self.ln_post = nn.LayerNorm(sizes.embed_dim)
        self.proj = nn.Parameter(sizes.embed_dim**-0.5 * torch.randn(sizes.embed_dim, sizes.embed_dim))

    def encode(self, tokens: Tensor, prompts: Prompts, projections: Projections | None = None) -> Run:
        """Map X_0 (B, L, D) and its prompts to the pooled feature, (B, E); the pooler does not see the prompts."""
        x = yield from self.transformer(tokens, prompts, projections=projections)
        return self.ln_post(self.attn_pool(x)) @ self.proj


class CocaTextTower(TextTransformer):
    """Text tower of CoCa: CLIP's, with a class token at the last position, whose output is the feature."""

    def __init__(self, sizes: CocaSizes, activation: str):
        super().__init__(sizes, activation)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context + 1, sizes.text_width))
        self.cls_emb = nn.Parameter(0.01 * torch.randn(sizes.text_width))

    def embed(self, tokens: Tensor) -> Tensor:
        """Map ids (B, 76) to X_0 (B, 77, D), the class token last."""
        words = self.token_embedding(tokens)
        class_token = self.cls_emb.to(words.dtype).expand(len(tokens), 1, -1)
        return torch.cat([words, class_token], dim=1) + self.positional_embedding

    def encode(
        self, tokens: Tensor, prompts: Prompts, ids: Tensor, longest: int, projections: Projections | None = None
    ) -> Run:
        """Map X_0 (B, 77, D) and its prompts to the feature of the class token, (B, E).

        Faithful: open_clip shifts the padding mask by one position (its ``correct_cls_mask=False``), with which the
        published weights were trained. The first padding token is visible, and the class token does not see itself.
        """
        visible = pad(ids != 0, (1, 0), value=True)
        kept = min(longest + 1, ids.shape[1])  # later padding is invisible
        x, visible = (torch.cat([part[:, :kept], part[:, -1:]], dim=1) for part in (tokens, visible))
        last = torch.full((len(x),), kept, device=x.device)
        x = yield from self.transformer(x, prompts, last, visible, projections)
        return self.ln_final(x) @ self.text_projection


class PromptedCoCa(PromptedCLIP):
    """CoCa with prompts in both towers, as ``PromptedCLIP``."""

    Sizes = CocaSizes
    TOWERS = {"image_encoder": CocaImageTower, "text_encoder": CocaTextTower}

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Split tensors under open_clip's names."""
        prefixes = {"image_encoder": "visual.", "text_encoder": "text."}
        return {
            tower: {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
            for tower, prefix in prefixes.items()
        }
