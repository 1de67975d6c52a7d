"""Prompted CoCa without any economy: one sample at a time, every position, every query of the pooler."""

import torch
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_coca import PromptedCoCa
from tests.oracles.prompts import attention, sample_prompts


def run(blocks: nn.ModuleList, x: Tensor, prompts: list[Tensor], visible: Tensor | None) -> Tensor:
    """Run blocks over [prompts, tokens (L, D)]; ``visible`` (L,) makes attention causal. Return the tokens (L, D)."""
    length, front = len(x), 0
    for i, block in enumerate(blocks):
        if i < len(prompts):
            x = torch.cat([prompts[i], x[min(front, len(prompts[i])) :]])
            front = len(x) - length
        normed, hidden = block.ln_1(x), None
        if visible is not None:
            seen = torch.cat([torch.ones(front, dtype=torch.bool), visible])
            hidden = torch.tensor([[not seen[k] or k > q for k in range(len(x))] for q in range(len(x))])
        attend = attention(block.attn, x.shape[1] // HEAD_WIDTH)
        x = x + attend(normed, normed, normed, need_weights=False, attn_mask=hidden)[0]
        x = x + block.mlp(block.ln_2(x))
    return x[front:]


def image_outputs(model: PromptedCoCa, tokens: Tensor, prompts: list[Tensor]) -> Tensor:
    """Return the normalised outputs of all queries of the pooler, (Q, E)."""
    tower = model.image_encoder
    context = tower.attn_pool.ln_k(run(tower.transformer.resblocks, tokens, prompts, None))
    queries = tower.attn_pool.ln_q(tower.attn_pool.query)
    return tower.ln_post(tower.attn_pool.attn(queries, context, context, need_weights=False)[0])


def text_outputs(model: PromptedCoCa, tokens: Tensor, prompts: list[Tensor], ids: Tensor) -> Tensor:
    """Return the outputs of all positions before the last norm, (77, D)."""
    visible = torch.tensor([k == 0 or bool(ids[k - 1]) for k in range(len(tokens))])
    return run(model.text_encoder.transformer.resblocks, tokens, prompts, visible)


def slow_features(model: PromptedCoCa, image: Tensor, ids: Tensor, cases: Tensor) -> Tensor:
    """Return the features (B, 2 E) of a batch."""
    rows = []
    for i, case in enumerate(cases.tolist()):
        tokens = {
            "image": model.image_encoder.embed(image[i : i + 1]),
            "text": model.text_encoder.embed(ids[i : i + 1]),
        }
        prompts = sample_prompts(model.prompts, case, tokens)
        seen = image_outputs(model, tokens["image"][0], prompts["image"])[0] @ model.image_encoder.proj
        read = text_outputs(model, tokens["text"][0], prompts["text"], ids[i])[-1]
        read = model.text_encoder.ln_final(read) @ model.text_encoder.text_projection
        rows.append(torch.cat([seen * (case != MISSING_IMAGE), read * (case != MISSING_TEXT)]))
    return torch.stack(rows)
