"""Prompted ViLT: one stream of blocks reads [prompts, text, image], padding masked.

As missing-aware prompts were published on it (Lee et al., CVPR 2023): the first text token is read
through a pooler that trains, and a missing modality goes through the network as a dummy, a white
image or an empty text.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import default_collate

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.backbones.vilt_convert import ViltSizes
from clip.modules.prompted_model import HEAD_STD, Inputs, PromptedModel, init_linear
from clip.modules.prompts import CasePrompts
from clip.modules.prompts.base import check_choice
from clip.modules.vision_transformer_prompts import Prompts, Transformer
from clip.utils.errors import UserError

PAD = 0  # the id behind a text's end
WHITE = 1.0  # of a dummy image, normalised
EPS, TEXT_EPS = 1e-6, 1e-12  # of the norms in the blocks, and of BERT's embeddings
SEGMENT, TEXT_TYPE, IMAGE_TYPE = 0, 0, 1  # rows of learned vectors
ASPECT = 1333 / 800  # of the largest image, as its transform has it


class ImageExtents(NamedTuple):
    """What a batch holds.

    Attributes:
        sizes: (B, 2), height and width of each image in pixels; the rest of it is padding.
        area: most pixels of an image.
        positions: most tokens of a text.
        seen: (n,), the rows that have an image.
        unseen: (B - n,), the others.
    """

    sizes: Tensor
    area: int
    positions: int
    seen: Tensor
    unseen: Tensor


def blank(tokens: Tensor) -> Tensor:
    """Empty the texts of (B, L) ids: their first token, [CLS], and their last, [SEP], stay."""
    last = (tokens != PAD).sum(1, keepdim=True) - 1
    ends = torch.cat([tokens[:, :1], tokens.gather(1, last)], dim=1)
    return F.pad(ends, (0, tokens.shape[1] - 2), value=PAD)


def interleave(sets: list[list[Tensor]]) -> Prompts:
    """Join sets of prompts of equal lengths, so that a later layer replaces those of the same kind.

    The order of prompts means nothing to the attention, but a later layer replaces the first ones.
    """
    if len(sets) == 1:
        return sets[0]
    return [rearrange(list(layer), "s b p d -> b (p s) d") for layer in zip(*sets, strict=True)]


class ViltTransformer(nn.Module):
    """ViLT's embeddings, blocks and pooler.

    Args:
        sizes: of the ViLT.
        activation: a key of ``layers.ACTIVATIONS``.
    """

    def __init__(self, sizes: ViltSizes, activation: str):
        super().__init__()
        width, std, self.patch, self.grid = sizes.width, HEAD_STD, sizes.patch, sizes.grid
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.text_positional_embedding = nn.Parameter(std * torch.randn(sizes.context, width))
        self.segment_embedding = nn.Parameter(std * torch.randn(2, width))
        self.ln_text = nn.LayerNorm(width, TEXT_EPS)
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch)
        self.class_embedding = nn.Parameter(std * torch.randn(width))
        self.positional_embedding = nn.Parameter(std * torch.randn(sizes.grid**2 + 1, width))
        self.type_embedding = nn.Parameter(std * torch.randn(2, width))
        self.transformer = Transformer(width, sizes.layers, activation, causal=False, eps=EPS)
        self.ln_final = nn.LayerNorm(width, EPS)
        self.pooler = nn.Linear(width, width)

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Turn ids (B, L) into (B, L, D)."""
        positions = self.text_positional_embedding[: tokens.shape[1]]
        embedded = self.token_embedding(tokens) + positions + self.segment_embedding[SEGMENT]
        return self.ln_text(embedded) + self.type_embedding[TEXT_TYPE]

    def embed_image(self, image: Tensor, sizes: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Turn images into tokens, the class token first and padding last.

        Args:
            image: (B, 3, H, W), padded to a common size.
            sizes: (B, 2), of the images themselves, multiples of the patch.
            most: patches of the largest one.

        Returns:
            (B, 1 + most, D), and which of them are no padding, (B, 1 + most).
        """
        made = self.conv1(image)  # (B, D, rows, columns)
        rows, columns = (torch.arange(n, device=image.device) for n in made.shape[2:])
        heights, widths = (sizes // self.patch).unbind(1)
        valid = (rows < heights[:, None])[:, :, None] & (columns < widths[:, None])[:, None]
        placed = made + self._positions(rows, columns, heights, widths)
        tokens, valid = rearrange(placed, "b d h w -> b (h w) d"), valid.flatten(1)
        if most < tokens.shape[1]:
            kept = valid.int().argsort(dim=1, descending=True, stable=True)[:, :most]
            tokens = tokens.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))
            valid = valid.gather(1, kept)
        head = (self.class_embedding + self.positional_embedding[0]).expand(len(image), 1, -1)
        tokens = torch.cat([head.to(tokens.dtype), tokens], dim=1)
        return tokens + self.type_embedding[IMAGE_TYPE], F.pad(valid, (1, 0), value=True)

    def _positions(self, rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """Stretch the learned grid over each image's own: bilinear, corner on corner."""
        learned = rearrange(self.positional_embedding[1:], "(h w) d -> 1 d h w", h=self.grid)
        down, right = (2 * place / (length[:, None] - 1).clamp(min=1) - 1
                       for place, length in ((rows, heights), (columns, widths)))  # fmt: skip
        where = torch.stack([right[:, None].expand(-1, len(rows), -1),
                             down[:, :, None].expand(-1, -1, len(columns))], dim=-1)  # fmt: skip
        learned = learned.expand(len(where), -1, -1, -1)
        return F.grid_sample(learned, where, align_corners=True, padding_mode="border")

    def encode(self, tokens: Tensor, prompts: Prompts, mask: Tensor) -> Tensor:
        """Turn X_0 (B, L, D), of which (B, L) is no padding, into the feature (B, D)."""
        first = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        read = self.transformer(tokens, prompts, first, mask)
        return self.pooler(self.ln_final(read)).tanh()


@dataclass(frozen=True)
class ViltSettings:
    """The backbone's own settings.

    Attributes:
        max_text_len: positions of a text; None for what MMP published for the data set.
        drop_missing: leave the tokens of a missing modality out instead of a dummy's, all but
            the one that is read; not as published.
    """

    max_text_len: int | None = None
    drop_missing: bool = False

    def __post_init__(self) -> None:
        length = self.max_text_len
        if length is not None and (type(length) is not int or length < 2):
            raise UserError(f"vilt.max_text_len={length!r} is not valid; give a whole number, at least 2")
        check_choice("vilt.drop_missing", self.drop_missing, (True, False))


class PromptedViLT(PromptedModel):
    """ViLT with prompts in front of its one sequence; features are (B, D)."""

    Settings = ViltSettings
    Sizes = ViltSizes
    UNFREEZABLE = {"backbone": ("stream.",)}
    ALWAYS_TRAINED = ("stream.pooler.",)

    @classmethod
    def build_towers(cls, sizes: ViltSizes, activation: str) -> dict[str, nn.Module]:
        """Build the one stream; see ``PromptedModel.towers``."""
        return {"stream": ViltTransformer(sizes, activation)}

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Take over tensors under the names of ``ViltTransformer``."""
        return {"stream": state}

    @classmethod
    def example_inputs(cls, sizes: ViltSizes, device: str) -> Inputs:
        """Make the largest image with a text that fills all positions."""
        high, wide = sizes.image_size, int(ASPECT * sizes.grid) * sizes.patch
        image = torch.zeros(1, 3, high, wide, device=device)
        tokens = torch.ones(1, sizes.context, dtype=torch.long, device=device)
        row = torch.zeros(1, dtype=torch.long, device=device)
        size = torch.tensor([[high, wide]]).to(device)
        return Inputs(image, tokens, row, ImageExtents(size, high * wide, sizes.context, row, row[:0]))

    @staticmethod
    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples, the images padded to the largest; "present" is an ``ImageExtents``."""
        sizes = torch.tensor([sample["image"].shape[1:] for sample in samples])
        high, wide = sizes.max(dim=0).values.tolist()
        padded = [sample | {"image": pad_to(sample["image"], high, wide)} for sample in samples]
        batch = default_collate(padded)
        present = measure(sizes, batch["tokens"], batch["missing_type"])
        return batch | {"present": present}

    @staticmethod
    def reindex(present: ImageExtents, tokens: Tensor, missing_type: Tensor) -> ImageExtents:
        """Count anew, the images' sizes kept; see ``PromptedModel.reindex``."""
        return measure(present.sizes, tokens, missing_type)

    def build_classifier(self, num_classes: int) -> nn.Module:
        """Make the classifier of two layers (MMP's release)."""
        width = self.stream.pooler.out_features
        inner = [init_linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU()]
        return nn.Sequential(*inner, init_linear(2 * width, num_classes))

    def features(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: ImageExtents | None = None
    ) -> Tensor:
        """Encode pairs, dummies among them; see ``PromptedModel.features``.

        Without ``present`` no image has padding: all are as large as the batch.
        """
        ids = torch.where((missing_type == MISSING_TEXT)[:, None], blank(tokens), tokens)
        sizes = torch.tensor(image.shape[2:], device=image.device).expand(len(image), 2)
        here = present or measure(sizes, ids, missing_type)
        cases, ids = self.prompts.prompts_by_case(), ids[:, : here.positions]
        if not self.options.drop_missing:
            return self._encode(cases, missing_type, ids, ids != PAD, image, here)
        read = (ids != PAD) & (missing_type != MISSING_TEXT)[:, None]
        read = F.pad(read[:, 1:], (1, 0), value=True)  # the first token is the feature's place
        seen, unseen = here.seen, here.unseen
        made = self._encode(cases, missing_type[seen], ids[seen], read[seen], image[seen],
                            here._replace(sizes=here.sizes[seen]))  # fmt: skip
        rest = self._encode(cases, missing_type[unseen], ids[unseen], read[unseen])
        rows = torch.cat([seen, unseen])
        both = torch.cat([made, rest])
        return torch.empty_like(both).index_copy(0, rows, both)

    def _encode(
        self,
        cases: CasePrompts,
        missing_type: Tensor,
        ids: Tensor,
        mask: Tensor,
        image: Tensor | None = None,
        here: ImageExtents | None = None,
    ) -> Tensor:
        tokens = self.stream.embed_text(ids)
        if image is not None:
            lacks = (missing_type == MISSING_IMAGE)[:, None, None, None]
            image = torch.where(lacks, WHITE, image)
            most = here.area // self.stream.patch**2
            patches, valid = self.stream.embed_image(image, here.sizes, most)
            tokens = torch.cat([tokens, patches], dim=1)
            mask = torch.cat([mask, valid], dim=1)
        sets = [self.prompts.select(name, cases, tokens, missing_type, mask)
                for name in cases]  # fmt: skip
        return self.stream.encode(tokens, interleave(sets), mask)


def pad_to(image: Tensor, high: int, wide: int) -> Tensor:
    """Pad (3, H, W) with zeros below and on the right."""
    return F.pad(image, (0, wide - image.shape[2], 0, high - image.shape[1]))


def measure(sizes: Tensor, tokens: Tensor, missing_type: Tensor) -> ImageExtents:
    """Count what a batch of images (B, 2) and ids (B, L), dummies among them, holds."""
    lacks = missing_type == MISSING_IMAGE
    seen, unseen = (~lacks).nonzero().squeeze(1), lacks.nonzero().squeeze(1)
    positions = int((tokens != PAD).sum(1).max()) if len(tokens) else 2
    area = int(sizes.prod(1).max()) if len(sizes) else 0
    return ImageExtents(sizes, area, positions, seen, unseen)
