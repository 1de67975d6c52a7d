"""Temporary."""

import torch
from torch import Tensor

from clip.modules.prompted_model import PromptedModel
from clip.utils.errors import UserError


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
