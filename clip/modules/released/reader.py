"""Reads checkpoints of the code that was released with the papers, of DCP and of MMP."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.modules.prompted_model import PromptedModel
from clip.modules.released.converted import ConvertedCheckpoint
from clip.modules.released.dcp import LEARNER, convert_dcp
from clip.modules.released.mmp import PROMPTS, convert_mmp
from clip.utils.errors import UserError

State = dict[str, Tensor]
# a part of a name that tells the release -> (state, seed of its run, its settings) -> sorted
RELEASES: dict[str, Callable[[State, int, Mapping[str, Any]], ConvertedCheckpoint]] = {
    LEARNER: lambda state, seed, _: convert_dcp(state, seed),
    PROMPTS[0]: lambda state, _, settings: convert_mmp(state, settings),
}


def read_released(path: Path, seed: int) -> dict[str, Any]:
    """Read a Lightning checkpoint, or a plain state dict, of released code.

    It names classes (its callbacks are keyed by them), which a loader of tensors refuses. Each is
    replaced by an empty class of ours here, so nothing of the file can run.

    Args:
        path: the file.
        seed: of the run that wrote it.

    Returns:
        "model_config", "state_dict" and "released", the backbone it was trained on.

    Raises:
        UserError: the file holds no state dict of released code.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    inert = [(type("Inert", (), {}), name) for name in names]
    with torch.serialization.safe_globals(inert):
        content = torch.load(path, map_location="cpu", weights_only=True)
    content = content if isinstance(content, dict) else {}
    state = content.get("state_dict", content)
    known = (read for mark, read in RELEASES.items() if any(mark in str(name) for name in state))
    if (take := next(known, None)) is None:
        raise UserError(f"{path} is no checkpoint of this project or of the released code")
    try:
        released = take(state, seed, _settings(content))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return {"model_config": released.model_config, "state_dict": released.own,
            "released": released.backbone}  # fmt: skip


def _settings(content: dict[str, Any]) -> Mapping[str, Any]:
    """Find the settings that Lightning keeps beside the tensors."""
    kept = content.get("hyper_parameters")
    inner = kept.get("config") if isinstance(kept, dict) else None
    return inner if isinstance(inner, dict) else {}


def check_backbone(model: PromptedModel, backbone: State, source: object) -> None:
    """Refuse a released checkpoint whose frozen backbone is not the model's.

    Raises:
        UserError: names the first tensor that differs.
    """
    ours, trained = model.state_dict(), (*model.unfrozen(model.unfreeze), *model.ALWAYS_TRAINED)
    for tower, tensors in model.tower_states(backbone).items():
        for name, tensor in tensors.items():
            own = f"{tower}.{name}"
            if own.startswith(trained):
                continue
            theirs = tensor.float()
            if ours[own].shape != theirs.shape or not torch.allclose(ours[own], theirs, 1e-3):
                raise UserError(f"{source} was trained on another backbone: {own} differs; set vit= to it")
