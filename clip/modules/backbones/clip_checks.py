"""Refuses every state dict that is not one whole CLIP, tensor by tensor."""

import torch
from torch import Tensor

from clip.modules.backbones.clip_convert import ClipSizes, layout_of
from clip.modules.layers import HEAD_WIDTH
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer
from clip.utils.errors import UserError

# Files may hold these beside the weights; they follow from the sizes.
NO_WEIGHTS = {"position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size"}
PLAIN = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
SHOWN = 5  # names in a message; of the rest it says how many


def convert_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict of any layout to OpenAI's names, float32.

    Raises:
        UserError: tensors are missing, unexpected, misshaped or not finite, listed by their names
            in the file, or the towers are not built as ours.
    """
    state = {n: tensor for n, tensor in state.items() if n.split(".")[-1] not in NO_WEIGHTS}
    layout = layout_of(state)
    sizes = ClipSizes.of(state, layout.rename)
    for tower, width in (("image", sizes.image_width), ("text", sizes.text_width)):
        if width % HEAD_WIDTH:
            raise UserError(f"its {tower} tower is {width} wide; CLIP's are multiples of {HEAD_WIDTH}")
    blank = _blank_state(sizes)
    check_whole(state, layout.write(blank), "CLIP")
    return {name: tensor.float() for name, tensor in layout.read(state, blank).items()}


def check_whole(state: dict[str, Tensor], wanted: dict[str, Tensor], kind: str) -> None:
    """Refuse tensors that are not all of a backbone and nothing else.

    Args:
        state: as in the file.
        wanted: the names and shapes that belong there.
        kind: of backbone, for the message.

    Raises:
        UserError: tensors are missing, unexpected, misshaped or not finite, by their names.
    """
    if faults := [_listed(fault, names) for fault, names in _faults(state, wanted).items() if names]:
        raise UserError(f"not one whole {kind}: {'; '.join(faults)}; get the complete file")


def _blank_state(sizes: ClipSizes) -> dict[str, Tensor]:
    """Name and shape every tensor of a CLIP, without memory for them."""
    with torch.device("meta"):
        image = VisionTransformer(**sizes.image(), activation="gelu")
        text = TextTransformer(**sizes.text(), activation="gelu")
        scale = torch.empty(())
    state = {f"visual.{name}": tensor for name, tensor in image.state_dict().items()}
    return state | text.state_dict() | {"logit_scale": scale}


def _faults(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, list[str]]:
    common = {name: found[name] for name in wanted if name in found}
    plain = {n for n, t in common.items() if t.dtype in PLAIN and t.layout == torch.strided
             and t.device.type == "cpu"}  # fmt: skip
    return {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "misshaped": [f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
                      for name, tensor in common.items() if tensor.shape != wanted[name].shape],
        "not of floating-point numbers": [name for name in common if name not in plain],
        "not finite": [name for name in common if name in plain and not _finite(common[name])],
    }  # fmt: skip


def _finite(tensor: Tensor) -> bool:
    # NaN and infinities show in the extremes, which cost a quarter of looking at every number.
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _listed(kind: str, names: list[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"
