"""Prompted CLIP: each tower encodes its modality, and the features are concatenated."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import default_collate

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.layers import init_linear
from clip.modules.prompted_model import Inputs, PromptedModel
from clip.modules.prompts.base import IMAGE, TEXT, Attentions, TowerInput
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer, run_in_lock_step
from clip.transforms.clip import ClipTransform
from clip.utils.settings import Settings


class BatchIndex(NamedTuple):
    """Rows of a batch that have a modality."""

    image_rows: Tensor  # (n,)
    text_rows: Tensor  # (m,)
    longest: int  # positions of the longest text, start and end included


def build_index(tokens: Tensor, missing_case: Tensor) -> BatchIndex:
    """Index the rows of a batch; arguments as in ``PromptedCLIP.features``."""
    image_rows = (missing_case != MISSING_IMAGE).nonzero().squeeze(1)
    text_rows = (missing_case != MISSING_TEXT).nonzero().squeeze(1)
    end = tokens[text_rows].argmax(dim=1)  # the id of the end of a text is the largest of all
    return BatchIndex(image_rows, text_rows, int(end.max()) + 1 if len(end) else 1)


PLACEHOLDERS = {"white": 255, "black": 0, "mean": 255 * torch.tensor(ClipTransform.mean)[:, None, None]}  # pixels


class TwoTowerSettings(Settings):
    """Settings of a backbone with a tower for each modality."""

    missing: Literal["zero", "dummy"] = Field(
        "zero", description="a missing modality is zero in the features, or encoded as a placeholder or an empty text"
    )
    placeholder: Literal[tuple(PLACEHOLDERS)] = Field("white", description="image that missing=dummy encodes")


class PromptedCLIP(PromptedModel):
    """CLIP with prompts in both towers.

    Features are (B, 2 E), the image half first. A missing modality is not encoded, and its half is
    exactly zero; with ``missing=dummy``, a placeholder takes its place.
    """

    UNFREEZABLE = {
        "ln_post": ("image_encoder.ln_post.",),
        "ln_final": ("text_encoder.ln_final.",),
        "image_proj": ("image_encoder.proj",),
        "text_proj": ("text_encoder.text_projection",),
        "backbone": ("image_encoder.", "text_encoder."),
    }
    Settings, Sizes = TwoTowerSettings, ClipSizes
    TOWERS = {"image_encoder": VisionTransformer, "text_encoder": TextTransformer}

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Split tensors under OpenAI's names; neither tower has ``logit_scale``."""
        image = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
        text = {n: tensor for n, tensor in state.items() if not n.startswith("visual.") and n != "logit_scale"}
        return {"image_encoder": image, "text_encoder": text}

    @classmethod
    def example_inputs(cls, sizes: ClipSizes, device: str) -> Inputs:
        """Return one image with a text that fills all positions."""
        image = torch.zeros(1, 3, sizes.image_size, sizes.image_size, device=device)
        tokens = torch.zeros(1, sizes.context, dtype=torch.long, device=device)
        tokens[:, -1] = sizes.vocabulary - 1
        row = torch.zeros(1, dtype=torch.long, device=device)
        return Inputs(image, tokens, row, BatchIndex(row, row, sizes.context))

    @staticmethod
    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples; "present" is a ``BatchIndex``."""
        batch = default_collate(samples)
        return batch | {"present": build_index(batch["tokens"], batch["missing_type"])}

    @staticmethod
    def reindex(present: BatchIndex, tokens: Tensor, missing_case: Tensor) -> BatchIndex:
        """Rebuild the index; see ``PromptedModel.reindex``."""
        return build_index(tokens, missing_case)

    def build_classifier(self, num_classes: int) -> nn.Module:
        """Build the linear classifier."""
        return init_linear(2 * self.image_encoder.proj.shape[1], num_classes)

    def attentions(self) -> Attentions:
        """Return the attentions of both towers."""
        towers = {IMAGE: self.image_encoder, TEXT: self.text_encoder}
        return {name: [block.attn for block in tower.transformer.resblocks] for name, tower in towers.items()}

    def fill(self, image: Tensor, tokens: Tensor, missing_case: Tensor) -> tuple[Tensor, Tensor]:
        """Replace missing images by the placeholder and missing texts by empty ones: only start and end token."""
        pixels = PLACEHOLDERS[self.settings.placeholder]
        pixels = ClipTransform.normalize(torch.as_tensor(pixels).to(image.device)).to(image.dtype)
        image = torch.where((missing_case == MISSING_IMAGE)[:, None, None, None], pixels, image)
        empty = pad(torch.stack([tokens[:, 0], tokens.amax(1)], dim=1), (0, tokens.shape[1] - 2))
        return image, torch.where((missing_case == MISSING_TEXT)[:, None], empty, tokens)

    def features(
        self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: BatchIndex | None = None
    ) -> Tensor:
        """Encode the modalities that are present; see ``PromptedModel.features``."""
        image_rows, text_rows, longest = present or build_index(tokens, missing_case)
        if self.settings.missing == "dummy":
            image_rows = text_rows = torch.arange(len(missing_case), device=missing_case.device)
            image, tokens = self.fill(image, tokens, missing_case)
            longest = max(longest, 2)  # of the empty text
        prompts, projections = self.prompts.prompts_by_case(), self.prompts.input_projections(self.attentions())
        # An empty selection still runs: its gradients are zeros, not None, so that AdamW treats a
        # batch without this modality as the published loop does.
        vision, x = self.image_encoder, self.image_encoder.embed(image[image_rows])
        selected = self.prompts.select(IMAGE, prompts, TowerInput(x, missing_case[image_rows], rows=image_rows))
        image_run = vision.encode(x, selected, projections.get(IMAGE))

        language, ids = self.text_encoder, tokens[text_rows]
        x = language.embed(ids)  # the prompts may depend on all 77 positions
        inputs = TowerInput(x, missing_case[text_rows], num_text=x.shape[1], rows=text_rows)
        selected = self.prompts.select(TEXT, prompts, inputs)
        text_run = language.encode(x, selected, ids, longest, projections.get(TEXT))
        text_features, image_features = run_in_lock_step(text_run, image_run)

        halves = []
        for rows, half in ((image_rows, image_features), (text_rows, text_features)):
            zeros = half.new_zeros(len(missing_case), half.shape[1])
            halves.append(zeros.index_copy(0, rows, half))
        return torch.cat(halves, dim=1)
