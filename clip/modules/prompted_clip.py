"""Prompted CLIP: each tower reads its own modality, and the features stand side by side."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.backbones.clip_convert import ClipSizes, tower_states
from clip.modules.prompted_model import Inputs, PromptedModel, init_linear
from clip.modules.prompts import IMAGE, TEXT, CasePrompts
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer


class BatchIndex(NamedTuple):
    """What a batch holds.

    Attributes:
        image_rows: (n,), the rows that have an image.
        text_rows: (m,), the rows that have a text.
        longest: positions of the longest text, start and end included.
    """

    image_rows: Tensor
    text_rows: Tensor
    longest: int


def end_of_text(tokens: Tensor) -> Tensor:
    """Find the first end-of-text token of (B, 77) ids: its id is the largest of all."""
    return tokens.argmax(dim=1)


def build_index(tokens: Tensor, missing_type: Tensor) -> BatchIndex:
    """Count what a batch holds; arguments as in ``PromptedCLIP.features``."""
    image_rows = (missing_type != MISSING_IMAGE).nonzero().squeeze(1)
    text_rows = (missing_type != MISSING_TEXT).nonzero().squeeze(1)
    end = end_of_text(tokens[text_rows])
    return BatchIndex(image_rows, text_rows, int(end.max()) + 1 if len(end) else 1)


class PromptedCLIP(PromptedModel):
    """CLIP with prompts in both towers.

    Features are (B, 2 E), the image half first. A missing modality is not encoded and its half is
    exactly zero.
    """

    UNFREEZABLE = {
        "ln_post": ("image_encoder.ln_post.",),
        "ln_final": ("text_encoder.ln_final.",),
        "image_proj": ("image_encoder.proj",),
        "backbone": ("image_encoder.", "text_encoder."),
    }
    Sizes = ClipSizes
    UNREAD = {MISSING_TEXT: "text_encoder", MISSING_IMAGE: "image_encoder"}

    @classmethod
    def build_towers(cls, sizes: ClipSizes, activation: str) -> dict[str, nn.Module]:
        """Build both towers; see ``PromptedModel.towers``."""
        image = VisionTransformer(**sizes.image(), activation=activation)
        return {"image_encoder": image,
                "text_encoder": TextTransformer(**sizes.text(), activation=activation)}  # fmt: skip

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Split tensors under OpenAI's names."""
        return dict(zip(("image_encoder", "text_encoder"), tower_states(state), strict=True))

    @classmethod
    def example_inputs(cls, sizes: ClipSizes, device: str) -> Inputs:
        """Make one image with a text that fills all positions."""
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
    def reindex(present: BatchIndex, tokens: Tensor, missing_type: Tensor) -> BatchIndex:
        """Count anew; see ``PromptedModel.reindex``."""
        return build_index(tokens, missing_type)

    def build_classifier(self, num_classes: int) -> nn.Module:
        """Make the linear classifier."""
        return init_linear(2 * self.image_encoder.proj.shape[1], num_classes)

    def features(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: BatchIndex | None = None
    ) -> Tensor:
        """Encode what is there; see ``PromptedModel.features``."""
        image_rows, text_rows, longest = present or build_index(tokens, missing_type)
        cases = self.prompts.prompts_by_case()
        # An empty selection still runs: its gradients are zeros, not None, so that AdamW treats a
        # batch without this modality as the published loop does.
        seen = self.encode_image(image[image_rows], cases, missing_type[image_rows])
        read = self.encode_text(tokens[text_rows], cases, missing_type[text_rows], longest)
        halves = []
        for rows, feature in ((image_rows, seen), (text_rows, read)):
            empty = feature.new_zeros(len(missing_type), feature.shape[1])
            halves.append(empty.index_copy(0, rows, feature))
        return torch.cat(halves, dim=1)

    def features_of(self, missing_type: Tensor, image: Tensor | None, tokens: Tensor | None) -> Tensor:
        """Encode a batch that all lacks the same; see ``PromptedModel.features_of``."""
        cases, half = self.prompts.prompts_by_case(), self.classifier.in_features // 2
        absent = self.classifier.weight.new_zeros(missing_type.shape[0], half)
        seen = absent if image is None else self.encode_image(image, cases, missing_type)
        if tokens is None:
            return torch.cat([seen, absent], dim=1)
        read = self.encode_text(tokens, cases, missing_type, tokens.shape[1])
        return torch.cat([seen, read], dim=1)

    def encode_image(self, image: Tensor, cases: CasePrompts, missing_type: Tensor) -> Tensor:
        """Turn images that are there, (B, 3, H, W), into features (B, E)."""
        tokens = self.image_encoder.embed(image)
        prompts = self.prompts.select(IMAGE, cases, tokens, missing_type)
        return self.image_encoder.encode(tokens, prompts)

    def encode_text(self, ids: Tensor, cases: CasePrompts, missing_type: Tensor, longest: int) -> Tensor:
        """Turn texts that are there, (B, 77), into features (B, E)."""
        tokens = self.text_encoder.embed(ids)
        prompts = self.prompts.select(TEXT, cases, tokens, missing_type)  # sees all 77
        return self.text_encoder.encode(tokens[:, :longest], prompts, end_of_text(ids))
