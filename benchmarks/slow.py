"""The same computation without any economy: the oracle of the tests and the yardstick of speed.

Written from the paper and the released code's behaviour: prompts are made sample by sample, both
towers run for every sample at full length, a missing modality is encoded as an all-ones image or
an empty text and its half of the feature set to zero afterwards. Attention is torch's own module.
"""

import torch
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import HEAD_WIDTH, Attention
from clip.modules.model import PromptedCLIP


def attention(ours: Attention, heads: int) -> nn.MultiheadAttention:
    """Make torch's own attention module around the very parameters of ours."""
    width = ours.out_proj.in_features
    with torch.device("meta"):
        module = nn.MultiheadAttention(width, heads, batch_first=True)
    module.in_proj_weight, module.in_proj_bias = ours.in_proj_weight, ours.in_proj_bias
    module.out_proj.weight, module.out_proj.bias = ours.out_proj.weight, ours.out_proj.bias
    return module


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

    def forward(self, x: Tensor, prompts: list[Tensor]) -> Tensor:
        """Turn tokens (B, L, D) into the outputs (B, L, D) of [prompts, tokens] without prompts."""
        for layer, (block, attend) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            if layer < len(prompts):
                replaced = prompts[layer].shape[1] if layer else 0
                x = torch.cat([prompts[layer], x[:, replaced:]], dim=1)
            mask = None
            if self.causal:
                mask = x.new_full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
            normed = block.ln_1(x)
            x = x + attend(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        return x[:, prompts[0].shape[1] if prompts else 0 :]


class SlowModel(nn.Module):
    """DCP or the baseline around the parameters of one of our models.

    Args:
        model: whose parameters are used; gradients arrive there.
    """

    def __init__(self, model: PromptedCLIP):
        super().__init__()
        self.model, self.prompts = model, model.prompts
        self.image_tower = SlowTower(model.image_encoder.transformer.resblocks, causal=False)
        self.text_tower = SlowTower(model.text_encoder.transformer.resblocks, causal=True)
        self.has_prompts = any(True for _ in model.prompts.parameters())
        dynamic = getattr(model.prompts, "dynamic", None) or {}
        self.readers = nn.ModuleDict({t: attention(one.attention, 1) for t, one in dynamic.items()})

    def correlated(self, case: int) -> tuple[list[Tensor], list[Tensor]]:
        """Make one sample's correlated prompts, (P, D) a layer: eq. 3-5 in either reading."""
        dcp = self.prompts
        if dcp.formulas.free_input:  # as printed: one set a case, layer 0 is not generated
            image, text = dcp.initial["image"][case], dcp.initial["text"][case]
            layers = [(image, text)]
        else:
            image = dcp.initial["image"][1 if case == MISSING_IMAGE else 0]
            text = dcp.initial["text"][1 if case == MISSING_TEXT else 0]
            layers = []
        for to_image, to_text in zip(dcp.generators["image"], dcp.generators["text"], strict=True):
            both = torch.cat([image, text], dim=-1)
            image, text = to_image(both), to_text(both)
            layers.append((image, text))
        return [image for image, _ in layers], [text for _, text in layers]

    def sample_prompts(self, case: int, image: Tensor, text: Tensor) -> list[list[Tensor]]:
        """Make one sample's prompts of both towers from its tokens (1, L, D)."""
        dcp, towers = self.prompts, []
        pairs = zip(("image", "text"), (image, text), self.correlated(case), strict=True)
        for tower, tokens, layers in pairs:
            first = [layers[0]]
            if dcp.common is not None:
                first.append(dcp.projections[tower](dcp.common[case]))
            if dcp.dynamic is not None:
                one = dcp.dynamic[tower]
                own, _ = self.readers[tower](
                    one.queries[case][None], tokens, tokens, need_weights=False
                )
                first.append(one.refine(own)[0])
            towers.append([torch.cat(first), *layers[1:]])
        return towers

    def all_prompts(self, image: Tensor, text: Tensor, cases: list[int]) -> list[list[Tensor]]:
        """Stack the prompts of all samples: two towers, (B, P, D) a layer."""
        if not self.has_prompts:
            return [[], []]
        rows = [
            self.sample_prompts(case, image[i : i + 1], text[i : i + 1])
            for i, case in enumerate(cases)
        ]
        return [
            [torch.stack(layer) for layer in zip(*(row[tower] for row in rows), strict=True)]
            for tower in (0, 1)
        ]

    def features(self, image: Tensor, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Encode everything, then zero what is missing; arguments as in ``PromptedCLIP``."""
        vision, language = self.model.image_encoder, self.model.text_encoder
        absent = missing_type == MISSING_IMAGE
        image = torch.where(absent[:, None, None, None], torch.ones_like(image), image)
        embedded, read = vision.embed(image), language.embed(tokens)
        prompts = self.all_prompts(embedded, read, missing_type.tolist())
        seen = vision.ln_post(self.image_tower(embedded, prompts[0])[:, 0]) @ vision.proj
        out = language.ln_final(self.text_tower(read, prompts[1]))
        out = out[torch.arange(len(out)), tokens.argmax(dim=1)] @ language.text_projection
        seen = seen * ~absent[:, None]
        out = out * (missing_type != MISSING_TEXT)[:, None]
        return torch.cat([seen, out], dim=1)

    def forward(self, image: Tensor, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Give the logits (B, num_classes)."""
        return self.model.classifier(self.features(image, tokens, missing_type))
