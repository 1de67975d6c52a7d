"""Decoupled prototypes (DPL; Lu et al., CVPR 2026): a head of class prototypes for each modality and missing case."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.prompts.base import PromptConfig
from clip.modules.prompts.on_top.base import OnTop
from clip.modules.prompts.registry import METHODS
from clip.utils.errors import UserError
from clip.utils.settings import Settings

# Missing case -> the prototypes that score it. Contrast: missing type of the training split -> those it trains.
BY_CASE = {
    COMPLETE: ("image_complete", "text_complete"),
    MISSING_TEXT: ("image_missing_text",),
    MISSING_IMAGE: ("text_missing_image",),
}
BOTH = ("image_complete", "image_missing_text", "text_complete", "text_missing_image")
CONTRAST = {"both": BOTH, "text": BOTH[:3], "image": (BOTH[0], *BOTH[2:])}
ONE = 1 - 1e-7  # a cosine of float32 vectors may exceed 1, where the sine has no gradient


class DPLSettings(Settings):
    """Settings of DPL; scales and margins, in radians, of complete, text-missing and image-missing samples."""

    base: Literal[tuple(METHODS)] = Field("dcp", description="method whose prompts are used, with default settings")
    scale: list[float] = Field(
        [32.0, 32.0, 32.0], min_length=3, max_length=3, description="factors of the cosines in the loss, by case"
    )
    margin: list[float] = Field(
        [0.1, 0.15, 0.15], min_length=3, max_length=3, description="margins of the angles in the loss, by case"
    )
    contrast: Literal[tuple(CONTRAST)] = Field("both", description="missing type of training; chooses prototypes")
    coefficient: float = Field(0.9, ge=0, description="weight of the contrastive loss of the prototypes")


class DPL(OnTop):
    """Classify by the cosine of each modality's feature to class prototypes of the sample's missing case.

    The loss puts a margin on the angle of every positive class (ArcFace); an auxiliary loss contrasts the prototypes of
    all classes (SupCon over prototypes). Logits are the cosines themselves, in [-1, 1].
    """

    Settings = DPLSettings
    replaces_classifier = True

    def __init__(self, config: PromptConfig, settings: DPLSettings):
        if config.single_stream:
            raise UserError("dpl needs features with an image and a text half; choose backbone=clip or coca")
        super().__init__(config, METHODS[settings.base])
        self.settings = settings
        shape = config.sizes.feature_width // 2, config.num_classes
        self.prototypes = nn.ParameterDict({name: nn.init.xavier_normal_(torch.empty(shape)) for name in BOTH})
        for name in ("scale", "margin"):
            self.register_buffer(name, torch.tensor(getattr(settings, name)), persistent=False)

    def heads(self, features: Tensor, classifier: nn.Module, missing_case: Tensor) -> list[tuple[float, Tensor]]:
        """Return the cosines (B, C), the mean over both modalities if the sample is complete."""
        # In 64 bit, since autocast would round the products of 32 bit to 16.
        image, text = F.normalize(features.double().unflatten(1, (2, -1)), dim=-1).unbind(1)
        cosines = {
            name: (image if name.startswith("image") else text) @ F.normalize(prototypes.double(), dim=0)
            for name, prototypes in self.prototypes.items()
        }
        by_case = torch.stack([sum(cosines[name] for name in names) / len(names) for names in BY_CASE.values()], dim=1)
        index = missing_case[:, None, None].expand(-1, 1, by_case.shape[2])  # by_case: (B, 3, C)
        return [(1.0, by_case.gather(1, index).squeeze(1).float())]

    def loss(
        self,
        heads: list[tuple[float, Tensor]],
        label: Tensor,
        missing_case: Tensor,
        task_loss: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Return the task loss of the scaled cosines, with the margin on the positive classes."""
        ((_, cosine),) = heads
        positive = label if label.ndim > 1 else F.one_hot(label, cosine.shape[1])
        scale, margin = self.scale[missing_case][:, None], self.margin[missing_case][:, None]
        cosine = cosine.clamp(-ONE, ONE)
        shifted = cosine * margin.cos() - (1 - cosine.square()).sqrt() * margin.sin()  # cos(angle + margin)
        shifted = torch.where(cosine > (math.pi - margin).cos(), shifted, cosine - margin * (math.pi - margin).sin())
        return task_loss(scale * torch.where(positive > 0, shifted, cosine), label)

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted contrastive loss of the prototypes; its temperature is 1, as in the released scripts."""
        columns = torch.cat([F.normalize(self.prototypes[name], dim=0).T for name in CONTRAST[self.settings.contrast]])
        num_classes = self.prototypes[BOTH[0]].shape[1]
        classes = torch.arange(len(columns), device=columns.device) % num_classes
        itself = torch.eye(len(columns), dtype=torch.bool, device=columns.device)
        similarity = (columns @ columns.T).masked_fill(itself, -torch.inf)
        positive = (classes[:, None] == classes) & ~itself
        log_share = similarity.log_softmax(dim=1).masked_fill(~positive, 0.0)
        loss = -(log_share.sum(1) / positive.sum(1)).mean()
        base = super().auxiliary_loss()
        return self.settings.coefficient * loss + (0.0 if base is None else base)
