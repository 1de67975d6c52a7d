"""Prompted ViLT: a single-stream transformer over [prompts, text, image] with a padding mask.

As in the released MMP code (Lee et al., CVPR 2023), the feature is the first text token after a
trainable pooler, and a missing modality is replaced by a dummy input: a white image or an empty text.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import default_collate

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.backbones.vilt_convert import ViltSizes
from clip.modules.layers import INIT_STD, init_linear
from clip.modules.prompted_model import Inputs, PromptedModel
from clip.modules.prompts.base import Attentions, TowerInput
from clip.modules.vision_transformer_prompts import Projections, Prompts, Transformer, finish
from clip.transforms.vilt import MAX_ASPECT
from clip.utils.settings import Settings

PAD = 0  # id of the padding token
WHITE = 1.0  # normalised pixel value of a dummy image
EPS, TEXT_EPS = 1e-6, 1e-12  # of the LayerNorms in the blocks and after BERT's embeddings
SEGMENT, TEXT_TYPE, IMAGE_TYPE = 0, 0, 1  # rows of the segment and modality-type embeddings


class ImageExtents(NamedTuple):
    """Sizes of the images and texts of a batch."""

    sizes: Tensor  # height and width of each image in pixels without padding, (B, 2)
    area: int  # pixels of the largest image
    positions: int  # tokens of the longest text


def measure(sizes: Tensor, tokens: Tensor) -> ImageExtents:
    """Measure a batch of images with sizes (B, 2) and ids (B, L), dummies included."""
    positions = int((tokens != PAD).sum(1).max()) if len(tokens) else 2
    return ImageExtents(sizes, int(sizes.prod(1).max()) if len(sizes) else 0, positions)


def blank(tokens: Tensor) -> Tensor:
    """Return the ids of empty texts, (B, L): only the first token [CLS] and the last [SEP] are kept."""
    last = (tokens != PAD).sum(1, keepdim=True) - 1
    ends = torch.cat([tokens[:, :1], tokens.gather(1, last)], dim=1)
    return F.pad(ends, (0, tokens.shape[1] - 2), value=PAD)


class ViltTransformer(nn.Module):
    """ViLT's embeddings, blocks and pooler; ``activation`` is a key of ``layers.ACTIVATIONS``."""

    def __init__(self, sizes: ViltSizes, activation: str):
        super().__init__()
        width, std, self.patch, self.grid = sizes.width, INIT_STD, sizes.patch, sizes.grid
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
        """Map ids (B, L) to (B, L, D)."""
        positions = self.text_positional_embedding[: tokens.shape[1]]
        embedded = self.token_embedding(tokens) + positions + self.segment_embedding[SEGMENT]
        return self.ln_text(embedded) + self.type_embedding[TEXT_TYPE]

    def embed_image(self, image: Tensor, sizes: Tensor, num_patches: int) -> tuple[Tensor, Tensor]:
        """Embed images that were padded to a common size, (B, 3, H, W), as tokens: class token first, padding last.

        ``sizes`` (B, 2) are their heights and widths, multiples of the patch; ``num_patches`` is that of the largest.
        Return (B, 1 + num_patches, D), and which of them are not padding, (B, 1 + num_patches).
        """
        patches = self.conv1(image)  # (B, D, rows, columns)
        rows, columns = (torch.arange(n, device=image.device) for n in patches.shape[2:])
        heights, widths = (sizes // self.patch).unbind(1)
        valid = (rows < heights[:, None])[:, :, None] & (columns < widths[:, None])[:, None]
        tokens = patches + self._positions(rows, columns, heights, widths)
        tokens, valid = rearrange(tokens, "b d h w -> b (h w) d"), valid.flatten(1)
        if num_patches < tokens.shape[1]:
            kept = valid.int().argsort(dim=1, descending=True, stable=True)[:, :num_patches]
            tokens = tokens.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))
            valid = valid.gather(1, kept)
        class_token = (self.class_embedding + self.positional_embedding[0]).expand(len(image), 1, -1)
        tokens = torch.cat([class_token.to(tokens.dtype), tokens], dim=1)
        return tokens + self.type_embedding[IMAGE_TYPE], F.pad(valid, (1, 0), value=True)

    def _positions(self, rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """Resize the positional embeddings to the grid of each image (bilinear, align_corners=True)."""
        learned = rearrange(self.positional_embedding[1:], "(h w) d -> 1 d h w", h=self.grid)
        y = 2 * rows / (heights[:, None] - 1).clamp(min=1) - 1
        x = 2 * columns / (widths[:, None] - 1).clamp(min=1) - 1
        grid = torch.stack([x[:, None].expand(-1, len(rows), -1), y[:, :, None].expand(-1, -1, len(columns))], dim=-1)
        learned = learned.expand(len(grid), -1, -1, -1)
        return F.grid_sample(learned, grid, align_corners=True, padding_mode="border")

    def encode(self, tokens: Tensor, prompts: Prompts, mask: Tensor, projections: Projections | None = None) -> Tensor:
        """Map X_0 (B, L, D) to the feature (B, D); ``mask`` (B, L) is True for tokens that are not padding."""
        first = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        pooled = finish(self.transformer(tokens, prompts, first, mask, projections))
        return self.pooler(self.ln_final(pooled)).tanh()


class ViltSettings(Settings):
    """Settings of the backbone."""

    max_text_len: int | None = Field(None, ge=2, description="positions of a text; None: MMP's for the data set")


class PromptedViLT(PromptedModel):
    """ViLT with prompts prepended to its joint sequence; features are (B, D)."""

    Settings, Sizes, TOWERS = ViltSettings, ViltSizes, {"stream": ViltTransformer}
    UNFREEZABLE = {"backbone": ("stream.",)}
    ALWAYS_TRAINED = ("stream.pooler.",)

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return the state dict of the single stream unchanged."""
        return {"stream": state}

    @classmethod
    def example_inputs(cls, sizes: ViltSizes, device: str) -> Inputs:
        """Return the largest image with a text that fills all positions."""
        height, width = sizes.image_size, int(MAX_ASPECT * sizes.grid) * sizes.patch
        image = torch.zeros(1, 3, height, width, device=device)
        tokens = torch.ones(1, sizes.context, dtype=torch.long, device=device)
        extents = ImageExtents(torch.tensor([[height, width]]).to(device), height * width, sizes.context)
        return Inputs(image, tokens, torch.zeros(1, dtype=torch.long, device=device), extents)

    @staticmethod
    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples with images padded to the largest one; "present" is an ``ImageExtents``."""
        sizes = torch.tensor([sample["image"].shape[1:] for sample in samples])
        height, width = sizes.max(dim=0).values.tolist()
        padded = []
        for sample in samples:  # zeros at the bottom and on the right
            _, rows, columns = sample["image"].shape
            padded.append(sample | {"image": F.pad(sample["image"], (0, width - columns, 0, height - rows))})
        batch = default_collate(padded)
        return batch | {"present": measure(sizes, batch["tokens"])}

    @staticmethod
    def reindex(present: ImageExtents, tokens: Tensor, missing_case: Tensor) -> ImageExtents:
        """Return ``present`` unchanged, since dummies keep the original sizes; see ``PromptedModel.reindex``."""
        return present

    def build_classifier(self, num_classes: int) -> nn.Module:
        """Build the two-layer classifier of the released MMP code."""
        width = self.stream.pooler.out_features
        hidden = [init_linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU()]
        return nn.Sequential(*hidden, init_linear(2 * width, num_classes))

    def attentions(self) -> Attentions:
        """Return the attentions of the single stream."""
        return {"joint": [block.attn for block in self.stream.transformer.resblocks]}

    def features(
        self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: ImageExtents | None = None
    ) -> Tensor:
        """Encode pairs, dummies included; without ``present`` no image has padding: all are as large as the batch."""
        ids = torch.where((missing_case == MISSING_TEXT)[:, None], blank(tokens), tokens)
        if present is None:
            present = measure(torch.tensor(image.shape[2:], device=image.device).expand(len(image), 2), ids)
        ids = ids[:, : present.positions]
        image = torch.where((missing_case == MISSING_IMAGE)[:, None, None, None], WHITE, image)
        patches, valid = self.stream.embed_image(image, present.sizes, present.area // self.stream.patch**2)
        x = torch.cat([self.stream.embed_text(ids), patches], dim=1)
        mask = torch.cat([ids != PAD, valid], dim=1)
        prompts, projections = self.prompts.prompts_by_case(), self.prompts.input_projections(self.attentions())
        inputs = TowerInput(x, missing_case, mask, num_text=ids.shape[1])
        first, *others = (self.prompts.select(name, prompts, inputs) for name in prompts)
        if others:  # interleaved: attention does not see their order, but a later layer replaces those of its kind
            layers = zip(first, *others, strict=True)
            first = [rearrange(list(layer), "s b p d -> b (p s) d") for layer in layers]
        return self.stream.encode(x, first, mask, projections.get("joint"))
