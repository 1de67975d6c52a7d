"""What a checkpoint must agree with before any of its tensors is used."""

import torch
from torch import Tensor

from clip.errors import UserError
from clip.modules.model import PromptedCLIP


def check_identity(ours: dict, theirs: dict, source: object) -> None:
    """Refuse a checkpoint of another task, CLIP or prompt shape.

    The name of the CLIP may differ, since a folder can move; its SHA-256 may not.

    Raises:
        UserError: names the first setting that differs, with both values.
    """
    for key in (key for key in ours if key != "vit"):
        if ours[key] != theirs.get(key):
            clips = f" (vit={theirs.get('vit')} there, vit={ours.get('vit')} here)"
            raise UserError(
                f"{source} has {key}={theirs.get(key)}, but this run has {key}={ours[key]}"
                f"{clips if key == 'backbone_sha256' else ''}; they must agree"
            )


def check_own(model: PromptedCLIP, state: dict[str, Tensor], source: object) -> None:
    """Refuse tensors that are not exactly the model's own.

    Raises:
        UserError: names the first tensor that is missing, left over or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.own_state().items()}
    for name in [*expected, *state]:
        theirs = tuple(state[name].shape) if name in state else "absent"
        ours = expected.get(name, "absent")
        if theirs != ours:
            raise UserError(
                f"{source}: {name} is {theirs} in the checkpoint and {ours} in the model"
            )


def load_own(model: PromptedCLIP, state: dict[str, Tensor], source: object) -> None:
    """Copy a checkpoint's tensors into the model, all of them or none."""
    check_own(model, state, source)
    own = model.own_state()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
