"""What a checkpoint must agree with before any of its tensors is used."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.modules.prompted_model import PromptedModel
from clip.utils.errors import UserError

SHOWN = 12  # entries of a list in a message
# Files and checkpoints made elsewhere, or before this was written down, do not.
IF_BOTH_SAY = ("class_names", "task_type", "arrow_files.train", "arrow_files.val")


def validate_checkpoint(checkpoint: dict[str, Any], source: Path) -> None:
    """Refuse what no program of ours wrote: an model_config or tensors of another kind.

    Raises:
        UserError: names the part.
    """
    model_config, state = checkpoint["model_config"], checkpoint["state_dict"]
    names = model_config.get("class_names", []) if isinstance(model_config, dict) else None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in [*names, *model_config]):
        raise UserError(f"{source} has an model_config that no run writes; get the file again")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        and tensor.device.type == "cpu" for name, tensor in state.items()
    ):  # fmt: skip
        raise UserError(f"{source} has a state_dict of other things than tensors by name")


def check_compatible(ours: dict, theirs: dict, source: object) -> None:
    """Refuse a checkpoint of another task, backbone, prompt shape or other classes.

    The name of the backbone may differ, since a folder can move; its SHA-256 may not.

    Raises:
        UserError: names the first setting that differs, with both values.
    """
    for key in (key for key in ours if key != "vit"):
        if key in IF_BOTH_SAY and key not in theirs:
            continue
        if ours[key] != theirs.get(key):
            clips = f" (vit={theirs.get('vit')} there, vit={ours.get('vit')} here)"
            raise UserError(
                f"{source} has {key}={_short(theirs.get(key), ours[key])}, "
                f"but this run has {key}={_short(ours[key], theirs.get(key))}"
                f"{clips if key == 'backbone_sha256' else ''}; they must agree"
            )


def _short(value: Any, other: Any) -> Any:
    """Leave a long list away but for its length and the first entry that the other has not."""
    if not isinstance(value, list) or len(value) <= SHOWN or not isinstance(other, list):
        return value
    where = next((i for i, one in enumerate(value) if other[i : i + 1] != [one]), len(value) - 1)
    return f"{len(value)} with {value[where]!r} at {where}"


def check_adapter(model: PromptedModel, state: dict[str, Tensor], source: object) -> None:
    """Refuse tensors that are not exactly the model's own.

    Raises:
        UserError: names the first tensor that is missing, left over or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.adapter_state_dict().items()}
    for name in [*expected, *state]:
        theirs = tuple(state[name].shape) if name in state else "absent"
        ours = expected.get(name, "absent")
        if theirs != ours:
            raise UserError(f"{source}: {name} is {theirs} in the checkpoint and {ours} in the model")


def load_adapter(model: PromptedModel, state: dict[str, Tensor], source: object) -> None:
    """Copy a checkpoint's tensors into the model, all of them or none."""
    check_adapter(model, state, source)
    own = model.adapter_state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
