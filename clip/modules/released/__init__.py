"""Read checkpoints of the code that was released with the papers on DCP and MMP."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.modules.backbones.tensor_files import load_inert
from clip.modules.prompted_model import PromptedModel
from clip.modules.released.dcp import LEARNER, convert_dcp
from clip.modules.released.mmp import PROMPTS, convert_mmp
from clip.utils.errors import UserError


def read_released(path: Path, seed: int) -> dict[str, Any]:
    """Read a Lightning checkpoint, or a plain state dict, of released code, whose run had this seed.

    Return what ``convert_dcp`` and ``convert_mmp`` return; raise a UserError if the file is not such a checkpoint.
    """
    content = load_inert(path.read_bytes())  # Lightning's callbacks are keyed by their classes
    content = content if isinstance(content, dict) else {}
    state = content.get("state_dict", content)
    try:
        if any(LEARNER in str(name) for name in state):
            return convert_dcp(state, seed)
        if PROMPTS[0] in state:
            parameters = content.get("hyper_parameters")
            config = parameters.get("config") if isinstance(parameters, dict) else None
            return convert_mmp(state, config if isinstance(config, dict) else {})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    raise UserError(f"{path} is not a checkpoint of this project or of the released code; pass another file")


def check_backbone(model: PromptedModel, backbone: dict[str, Tensor], source: object) -> None:
    """Check that the frozen backbone of a released checkpoint is the model's; raise a UserError if a tensor differs."""
    ours, trained = model.state_dict(), (*model.unfrozen(model.unfreeze), *model.ALWAYS_TRAINED)
    for tower, tensors in model.tower_states(backbone).items():
        for name, theirs in ((f"{tower}.{name}", tensor.float()) for name, tensor in tensors.items()):
            differs = ours[name].shape != theirs.shape or not torch.allclose(ours[name], theirs, 1e-3)
            if differs and not name.startswith(trained):
                raise UserError(f"{source} was trained on another backbone: {name} differs; set vit= to that backbone")
