"""What a checkpoint of released code holds, under our names."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A state dict of released code.

    Attributes:
        backbone: its backbone's tensors as ``build_model`` takes them; unfrozen parts have trained.
        own: what a checkpoint of ours holds.
        model_config: the settings that a checkpoint of ours records.
    """

    backbone: dict[str, Tensor]
    own: dict[str, Tensor]
    model_config: dict[str, Any]
