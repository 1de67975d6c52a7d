"""AOEPT without any economy: one sample at a time, its towers layer by layer, attention to the memory head by head."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_clip import PromptedCLIP
from tests.oracles.prompts import attention

OTHER, MISSING = {"text": "image", "image": "text"}, {"text": MISSING_TEXT, "image": MISSING_IMAGE}


class Sample(NamedTuple):
    """Feature of one sample, and the means that the contrastive loss compares."""

    feature: Tensor  # (2 E,)
    own: dict[tuple[str, int], Tensor]  # tower and layer -> mean of its gated own prompts (D,)
    behind: dict[tuple[str, int], Tensor]  # tower and layer -> mean of its tokens behind that layer (D,)


def read(queries: Tensor, memory: Tensor) -> Tensor:
    """Attend from (P, D) to (K, D), eight heads, and add the queries."""
    size, parts = queries.shape[1] // 8, []
    for head in range(8):
        q, k = (x[:, head * size : (head + 1) * size] for x in (queries, memory))
        parts.append((q @ k.T / size**0.5).softmax(dim=1) @ k)
    return torch.cat(parts, dim=1) + queries


def stretched(table: Tensor, count: int) -> Tensor:
    """Interpolate (L, D) to (count, D), one position at a time."""
    rows = []
    for i in range(count):
        at = max(0.0, (i + 0.5) * len(table) / count - 0.5)
        low = int(at)
        high = min(low + 1, len(table) - 1)
        rows.append(table[low] * (1 - (at - low)) + table[high] * (at - low))
    return torch.stack(rows)


def embed_text(model: PromptedCLIP, ids: Tensor) -> Tensor:
    """Embed one text: up to its end, or with all padding and stretched positions as released."""
    language, end = model.text_encoder, int(ids.argmax())
    if not model.prompts.padding:
        return language.token_embedding.weight[ids[: end + 1]] + language.positional_embedding[: end + 1]
    ids, prompts = ids.clone(), 2 * model.prompts.shared.shape[1]
    ids[end:] = ids[end].clone()
    return language.token_embedding.weight[ids] + stretched(language.positional_embedding, len(ids) + prompts)[prompts:]


def hidden_keys(name: str, length: int, front: int, end: int) -> Tensor | None:
    """Return which keys each query may not see: later ones and, of a text, its padding."""
    if name == "image":
        return None
    return torch.tensor([[k > q or k > front + end for k in range(length)] for q in range(length)])


def run(model: PromptedCLIP, image: Tensor, ids: Tensor, case: int) -> Sample:
    """Run both towers over one pair, dummies included."""
    method, vision, language = model.prompts, model.image_encoder, model.text_encoder
    zero, end, depth = model.settings.missing == "zero", int(ids.argmax()), len(method.shared)
    absent = [name for name, missing in MISSING.items() if zero and case == missing]
    x = {"text": embed_text(model, ids), "image": vision.embed(image[None])[0]}
    blocks = {"text": language.transformer.resblocks, "image": vision.transformer.resblocks}
    front, own, behind = {"text": 0, "image": 0}, {}, {}
    for i in range(max(map(len, blocks.values()))):
        for name in ("text", "image"):
            if name in absent or i >= len(blocks[name]):
                continue
            tower, other, tokens = method.towers[name], OTHER[name], x[name][front[name] :]
            if 0 < i <= depth:
                behind[name, i - 1] = tokens.mean(0)
            if i < depth:
                parts = []
                for queries, norm, gates in (
                    (tower.projections[i](method.shared[i]), tower.shared_norm, tower.shared_gates),
                    (tower.queries[i], tower.norm, tower.gates),
                ):
                    prompts = norm(read(queries, tower.memory[i]))
                    if case != MISSING[other]:
                        prompts = prompts * gates[i](x[other][front[other] :].mean(0)).sigmoid()
                    parts.append(prompts)
                own[name, i] = parts[1].mean(0)
                x[name] = torch.cat([*parts, tokens])
                front[name] = len(x[name]) - len(tokens)
            x[name] = step(blocks[name][i], x[name], hidden_keys(name, len(x[name]), front[name], end))
    last = len(x["text"]) - 1  # the end of the text, or the last position as released
    halves = [vision.ln_post(x["image"][front["image"]]) @ vision.proj]
    halves.append(language.ln_final(x["text"][last]) @ language.text_projection)
    halves = [half * (name not in absent) for name, half in zip(("image", "text"), halves, strict=True)]
    return Sample(torch.cat(halves), own, behind)


def step(block: nn.Module, x: Tensor, hidden: Tensor | None) -> Tensor:
    """Apply one block to (L, D)."""
    normed = block.ln_1(x)
    x = x + attention(block.attn, x.shape[1] // HEAD_WIDTH)(normed, normed, normed, attn_mask=hidden)[0]
    return x + block.mlp(block.ln_2(x))


def slow_outputs(model: PromptedCLIP, image: Tensor, ids: Tensor, cases: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, C) and the auxiliary loss of a batch, whose dummies ``PromptedCLIP.fill`` makes."""
    if model.settings.missing == "dummy":
        image, ids = model.fill(image, ids, cases)
    pairs = zip(image, ids, cases.tolist(), strict=True)
    samples = [run(model, *pair) for pair in pairs]
    terms = []
    for name, missing in MISSING.items():
        having = [sample for sample, case in zip(samples, cases.tolist(), strict=True) if case != missing]
        for i in range(len(model.prompts.shared) if len(having) > 1 else 0):
            losses = []
            for k, sample in enumerate(having):
                own = sample.own[name, i]
                means = [other.behind[name, i].detach() for other in having]
                scores = torch.stack([own @ mean / own.norm() / mean.norm() for mean in means])
                losses.append(-(model.prompts.logit_scale.exp() * scores).log_softmax(0)[k])
            terms.append(sum(losses) / len(losses))
    auxiliary = model.prompts.settings.coefficient * sum(terms) / len(terms)
    return model.classifier(torch.stack([sample.feature for sample in samples])), auxiliary
