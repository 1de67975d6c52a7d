"""Models and batches of published shapes, with random weights."""

import torch
from torch import Tensor

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules import PromptedCLIP, build_model
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer

VIT_B_16 = ClipSizes(image_width=768, image_layers=12, patch=16, grid=14, text_width=512,
                     text_layers=12, context=77, vocabulary=49408, embed_dim=512)  # fmt: skip
CLASSES = 23
WORDS = (52, 0.45)  # median and log-deviation of a text's length, about MM-IMDb's plots
START = VIT_B_16.vocabulary - 2
END = VIT_B_16.vocabulary - 1

Batch = tuple[Tensor, Tensor, Tensor]  # image, tokens, missing_type


def random_model(prompt_type: str = "dcp", sizes: ClipSizes = VIT_B_16) -> PromptedCLIP:
    """Build a CLIP of these sizes with random weights and the prompts of a method."""
    torch.manual_seed(0)
    image = VisionTransformer(**sizes.image(), activation="quick_gelu")
    text = TextTransformer(**sizes.text(), activation="quick_gelu")
    state = {f"visual.{name}": tensor for name, tensor in image.state_dict().items()}
    state |= text.state_dict() | {"logit_scale": torch.tensor(2.0)}
    return build_model(state, prompt_type, CLASSES)


def batches(missing_type: str, ratio: float, samples: int, size: int, side: int = VIT_B_16.image_size) -> list[Batch]:
    """Make batches whose missing cases come from a drawn table: ``ratio`` of all samples, exactly.

    Args:
        missing_type: "text", "image" or "both".
        ratio: share of incomplete samples.
        samples: in all, a multiple of ``size``.
        size: samples of a batch.
        side: of an image, in pixels.
    """
    table = draw_mask(
        "benchmark", "train", torch.zeros(samples).numpy(), MissingConfig({"train": missing_type}, {"train": ratio})
    )
    generator = torch.Generator().manual_seed(1)
    out = []
    for rows in torch.arange(samples).split(size):
        cases = torch.from_numpy(table[rows].astype("int64"))
        image = torch.randn(len(rows), 3, side, side, generator=generator)
        image[cases == MISSING_IMAGE] = 1  # as the released code fills it
        tokens = torch.stack([_text(int(case) != MISSING_TEXT, generator) for case in cases])
        out.append((image, tokens, cases))
    return out


def _text(present: bool, generator: torch.Generator) -> Tensor:
    median, deviation = WORDS
    length = median * torch.exp(deviation * torch.randn((), generator=generator))
    count = min(VIT_B_16.context - 2, int(length)) if present else 0
    ids = torch.zeros(VIT_B_16.context, dtype=torch.long)
    ids[0], ids[count + 1] = START, END
    ids[1 : count + 1] = torch.randint(1, START, (count,), generator=generator)
    return ids
