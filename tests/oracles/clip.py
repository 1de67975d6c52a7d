"""The same computation without any economy: the oracle of the tests and the yardstick of speed.

Written from the papers and the released code's behaviour: prompts are made sample by sample, both
towers run for every sample at full length, a missing modality is encoded as an all-ones image or
an empty text and its half of the feature set to zero afterwards, unless ``missing=dummy``. Attention
is torch's own module, or a softmax written out where keys and values have a prefix.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import HEAD_WIDTH, Attention
from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.prompts.adapters.lora import ProjectionAdapter
from tests.oracles.prompts import TOWERS, attention, changed_projection, sample_prompts

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PLACEHOLDERS = {  # normalised pixels
    "white": torch.tensor([(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]),
    "black": torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)]),
    "mean": torch.zeros(3),
}


def with_prefix(
    ours: Attention, x: Tensor, prefix: tuple[Tensor, Tensor] | None, causal: bool, projection: tuple[Tensor, Tensor]
) -> Tensor:
    """Attend to a prefix (B, P, D) of keys and values and to x (B, L, D), head by head."""
    parts = zip(*(part.chunk(3) for part in projection), strict=True)
    q, k, v = (x @ weight.T + bias for weight, bias in parts)
    if prefix is not None:
        k, v = torch.cat([prefix[0], k], dim=1), torch.cat([prefix[1], v], dim=1)
    hidden = torch.zeros(q.shape[1], k.shape[1], dtype=torch.bool)
    for i in range(q.shape[1] if causal else 0):
        hidden[i, k.shape[1] - q.shape[1] + i + 1 :] = True
    mixed = []
    for head in range(ours.heads):
        part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / HEAD_WIDTH**0.5
        mixed.append(scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v[..., part])
    return ours.out_proj(torch.cat(mixed, dim=-1))


class SlowTower(nn.Module):
    """The blocks of one tower; all positions of all layers are computed.

    Args:
        blocks: of our tower.
        causal: a position sees only what stands in front of it.
    """

    def __init__(self, blocks: nn.ModuleList, causal: bool):
        super().__init__()
        self.blocks, self.causal = blocks, causal
        heads = blocks[0].ln_1.weight.shape[0] // HEAD_WIDTH
        self.attentions = nn.ModuleList(attention(block.attn, heads) for block in blocks)

    def forward(self, x: Tensor, prompts: list, change: Callable | None, lengths: list[int]) -> Tensor:
        """Turn tokens (B, L, D) into the outputs (B, L, D) of [prompts, tokens] without prompts.

        ``change`` maps a layer, its frozen weight and bias to those that are used instead. The first ``lengths`` tokens
        of each sample are not padding; a list of functions makes its prompts from them.
        """
        length = x.shape[1]
        for layer, (block, attend) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            given = prompts[layer] if layer < len(prompts) else None
            if isinstance(given, list):
                tokens = x[:, x.shape[1] - length :]
                rows = zip(given, tokens, lengths, strict=True)
                given = torch.stack([make(row[:count]) for make, row, count in rows])
            if isinstance(given, Tensor):
                replaced = given.shape[1] if layer else 0
                x = torch.cat([given, x[:, replaced:]], dim=1)
            normed = block.ln_1(x)
            if isinstance(given, tuple) or change:
                frozen = block.attn.in_proj_weight, block.attn.in_proj_bias
                projection = change(layer, *frozen) if change else frozen
                prefix = given if isinstance(given, tuple) else None
                x = x + with_prefix(block.attn, normed, prefix, self.causal, projection)
            else:
                mask = None
                if self.causal:
                    mask = x.new_full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
                x = x + attend(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        return x[:, x.shape[1] - length :]


class SlowModel(nn.Module):
    """Any method around the parameters of one of our models.

    Args:
        model: whose parameters are used; gradients arrive there.
    """

    def __init__(self, model: PromptedCLIP):
        super().__init__()
        self.model, self.prompts = model, model.prompts
        self.image_tower = SlowTower(model.image_encoder.transformer.resblocks, causal=False)
        self.text_tower = SlowTower(model.text_encoder.transformer.resblocks, causal=True)

    def all_prompts(self, image: Tensor, text: Tensor, cases: list[int]) -> list[list]:
        """Stack the prompts of all samples: two towers, (B, P, D) or two of them a layer."""
        rows = []
        for i, case in enumerate(cases):
            tokens = {"image": image[i : i + 1], "text": text[i : i + 1]}
            rows.append(sample_prompts(self.prompts, case, tokens))
        return [[stack(layer) for layer in zip(*(row[tower] for row in rows), strict=True)] for tower in TOWERS]

    def features(self, image: Tensor, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Encode everything, then zero what is missing; arguments as in ``PromptedCLIP``."""
        vision, language = self.model.image_encoder, self.model.text_encoder
        absent, dummy = missing_type == MISSING_IMAGE, self.model.settings.missing == "dummy"
        image, tokens = image.clone(), tokens.clone()
        for i, case in enumerate(missing_type.tolist()):
            if case == MISSING_IMAGE:
                image[i] = PLACEHOLDERS[self.model.settings.placeholder][:, None, None]
            if case == MISSING_TEXT and dummy:
                end = tokens[i].max()
                tokens[i, 1:] = 0
                tokens[i, 1] = end
        embedded, read = vision.embed(image), language.embed(tokens)
        prompts = self.all_prompts(embedded, read, missing_type.tolist())
        changes = [None, None]
        if isinstance(self.prompts, ProjectionAdapter):
            changes = [partial(changed_projection, self.prompts, tower) for tower in TOWERS]
        whole, ends = [embedded.shape[1]] * len(image), (1 + tokens.argmax(dim=1)).tolist()
        seen = vision.ln_post(self.image_tower(embedded, prompts[0], changes[0], whole)[:, 0]) @ vision.proj
        out = language.ln_final(self.text_tower(read, prompts[1], changes[1], ends))
        out = out[torch.arange(len(out)), tokens.argmax(dim=1)] @ language.text_projection
        if not dummy:
            seen = seen * ~absent[:, None]
            out = out * (missing_type != MISSING_TEXT)[:, None]
        return torch.cat([seen, out], dim=1)

    def heads(self, image: Tensor, tokens: Tensor, missing_type: Tensor) -> list[tuple[float, Tensor]]:
        """Return pairs of a weight and logits (B, num_classes)."""
        features = self.features(image, tokens, missing_type)
        return self.prompts.heads(features, self.model.classifier, missing_type)

    def forward(self, image: Tensor, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Return the logits (B, num_classes)."""
        return sum(weight * logits for weight, logits in self.heads(image, tokens, missing_type))


def stack(of_samples: tuple) -> Tensor | tuple[Tensor, ...] | list[Callable]:
    """Join one layer of all samples: tokens, keys and values, or functions."""
    if callable(of_samples[0]):
        return list(of_samples)
    if isinstance(of_samples[0], tuple):
        return tuple(torch.stack(part) for part in zip(*of_samples, strict=True))
    return torch.stack(of_samples)
