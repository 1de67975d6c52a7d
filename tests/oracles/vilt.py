"""Prompted ViLT without any economy: one sample at a time, nothing padded, the whole last block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_vilt import PAD, PromptedViLT
from clip.modules.prompts.adapters.lora import ProjectionAdapter
from clip.modules.prompts.memprompt import MemPrompt
from clip.modules.prompts.mmp import MMP
from tests.oracles.prompts import attention, changed_projection, sample_prompts


class SlowViLT(nn.Module):
    """Any method around the parameters of one of our models.

    Args:
        model: whose parameters are used; gradients arrive there.
    """

    def __init__(self, model: PromptedViLT):
        super().__init__()
        self.model, self.stream = model, model.stream

    def text(self, ids: Tensor) -> Tensor:
        """Embed one text (L,) as (L, D): word, position and segment, a norm, the type."""
        stream = self.stream
        words = stream.token_embedding.weight[ids] + stream.text_positional_embedding[: len(ids)]
        return stream.ln_text(words + stream.segment_embedding[0]) + stream.type_embedding[0]

    def image(self, image: Tensor) -> Tensor:
        """Embed one image (3, H, W) as (1 + patches, D)."""
        stream, grid = self.stream, self.stream.grid
        patches = stream.conv1(image[None])[0]
        learned = stream.positional_embedding[1:].T.unflatten(1, (grid, grid))
        shape = patches.shape[1:]
        placed = F.interpolate(learned[None], shape, mode="bilinear", align_corners=True)[0]
        head = stream.class_embedding + stream.positional_embedding[0]
        tokens = torch.cat([head[None], (patches + placed).flatten(1).T])
        return tokens + stream.type_embedding[1]

    def joint(self, image: Tensor, ids: Tensor, case: int) -> Tensor:
        """Embed one pair, with a dummy in place of what is missing."""
        ids = ids[ids != PAD]
        if case == MISSING_TEXT:
            ids = ids[[0, -1]]
        if case == MISSING_IMAGE:
            image = torch.ones_like(image)
        return torch.cat([self.text(ids), self.image(image)])

    def feature(self, image: Tensor, ids: Tensor, case: int) -> Tensor:
        """Encode one pair, (D,)."""
        tokens = self.joint(image, ids, case)
        both = dict.fromkeys(("image", "text"), tokens[None])
        sets = sample_prompts(self.model.prompts, case, both)
        stays, fronts = isinstance(self.model.prompts, MMP | MemPrompt), {}
        num_text = 2 if case == MISSING_TEXT else int((ids != PAD).sum())
        x, added = tokens, 0
        for i, block in enumerate(self.stream.transformer.resblocks):
            attend = attention(block.attn, len(x[0]) // HEAD_WIDTH)
            prefix = None
            for name, layers in sets.items():
                if i >= len(layers):
                    continue
                if isinstance(layers[i], tuple):
                    prefix = layers[i]
                elif callable(layers[i]):
                    content = x[-len(tokens) :]
                    made = layers[i](content[:num_text] if name == "text" else content[num_text:])
                    x, added = torch.cat([made, x]), added + len(made)
                elif stays:
                    x, added = torch.cat([layers[i], x]), added + len(layers[i])
                else:
                    fronts[name] = torch.cat([layers[i], fronts.get(name, x[:0])[len(layers[i]) :]])
            x = self._block(i, block, attend, torch.cat([*fronts.values(), x]), prefix)
            for name in fronts:
                fronts[name], x = x[: len(fronts[name])], x[len(fronts[name]) :]
        read = self.stream.ln_final(x[added])
        return torch.tanh(self.stream.pooler(read))

    def _block(self, i: int, block: nn.Module, attend: nn.Module, x: Tensor, prefix: tuple | None) -> Tensor:
        normed, projection = block.ln_1(x), (block.attn.in_proj_weight, block.attn.in_proj_bias)
        if isinstance(self.model.prompts, ProjectionAdapter):
            projection, prefix = changed_projection(self.model.prompts, "joint", i, *projection), (x[:0], x[:0])
        if prefix is None:
            read = attend(normed, normed, normed, need_weights=False)[0]
        else:
            read = _with_prefix(block.attn, projection, normed, *prefix)
        x = x + read
        return x + block.mlp(block.ln_2(x))

    def heads(self, image: Tensor, tokens: Tensor, cases: Tensor, sizes: list) -> list[tuple[float, Tensor]]:
        """Return pairs of a weight and logits (B, num_classes), given images that are padded to one size."""
        features = torch.stack([
            self.feature(image[i, :, : size[0], : size[1]], tokens[i], int(cases[i]))
            for i, size in enumerate(sizes)
        ])  # fmt: skip
        return self.model.prompts.heads(features, self.model.classifier, cases)


def _with_prefix(attn: nn.Module, projection: tuple, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend to (L, D) with keys and values (P, D) in front, head by head."""
    q, k, v = (x @ w.T + b for w, b in zip(*(part.chunk(3) for part in projection), strict=True))
    k, v = torch.cat([keys, k]), torch.cat([values, v])
    heads = [
        (qh @ kh.T / HEAD_WIDTH**0.5).softmax(-1) @ vh
        for qh, kh, vh in zip(*(part.split(HEAD_WIDTH, dim=1) for part in (q, k, v)), strict=True)
    ]
    return attn.out_proj(torch.cat(heads, dim=1))
