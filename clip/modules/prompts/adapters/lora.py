"""Weight adaptation of attention projections: LoRA, DoRA and BitFit."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from clip.modules.layers import InputProjection
from clip.modules.prompts.base import Attentions, PromptConfig
from clip.modules.prompts.baselines import LinearProbe
from clip.utils.settings import Settings

QKV = "qkv"  # order of the thirds of an input projection


class AdapterSettings(Settings):
    """Settings of every method that adapts attention projections."""

    projections: Literal["q", "k", "v", "qk", "qv", "kv", "qkv"] = Field("qv", description="projections that change")
    layers: int = Field(2, ge=1, description="last layers of each tower whose attention changes")


class ProjectionAdapter(LinearProbe):
    """Base of the methods without prompts that change projections of the last layers of each tower.

    A subclass implements ``adapt``; its parameters are named by ``key``. The prompt length and depth are ignored.
    After training, the changed projections can be written into the backbone: inference then costs nothing.
    """

    Settings = AdapterSettings

    def __init__(self, config: PromptConfig, settings: AdapterSettings):
        super().__init__(config)
        config.check_depth("layers", settings.layers)
        self.projections, self.widths = settings.projections, dict(config.sizes.towers)
        depths = config.sizes.depths
        self.layers = {tower: range(depths[tower] - settings.layers, depths[tower]) for tower in self.widths}
        self.keys = [self.key(t, i, p) for t in self.widths for i in self.layers[t] for p in self.projections]

    @staticmethod
    def key(tower: str, layer: int, projection: str) -> str:
        """Return the name of the parameters of one projection."""
        return f"{tower}_{layer}_{projection}"

    def width(self, key: str) -> int:
        """Return the channels D of the tower that a key belongs to."""
        return self.widths[key.partition("_")[0]]

    def adapt(self, key: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return what replaces a frozen projection, (D, D) and (D,)."""
        raise NotImplementedError

    def input_projections(self, attentions: Attentions) -> Mapping[str, Mapping[int, InputProjection]]:
        """Return the changed projections; see ``PromptMethod.input_projections``."""
        changed = {tower: {} for tower in self.widths}
        for tower, layers in self.layers.items():
            for i in layers:
                weight, bias = attentions[tower][i].projection
                thirds = dict(zip(QKV, zip(weight.chunk(3), bias.chunk(3), strict=True), strict=True))
                thirds |= {p: self.adapt(self.key(tower, i, p), *thirds[p]) for p in self.projections}
                changed[tower][i] = InputProjection(*map(torch.cat, zip(*thirds.values(), strict=True)))
        return changed

    def frozen_weights(self, attentions: Attentions) -> dict[str, Tensor]:
        """Return the frozen weight (D, D) of every projection that changes."""
        return {
            self.key(tower, i, p): attentions[tower][i].in_proj_weight.chunk(3)[QKV.index(p)]
            for tower, layers in self.layers.items()
            for i in layers
            for p in self.projections
        }


class LoRASettings(AdapterSettings):
    """Settings of LoRA and DoRA."""

    rank: int = Field(4, ge=1, description="rank of the learned matrices")
    alpha: float = Field(4.0, gt=0, description="their factor, times the rank")


class LoRA(ProjectionAdapter):
    """Add a learned matrix of low rank to a projection: W + alpha / r · B A (Hu et al., ICLR 2022, eq. 3)."""

    Settings = LoRASettings

    def __init__(self, config: PromptConfig, settings: LoRASettings):
        super().__init__(config, settings)
        rank, self.scale = settings.rank, settings.alpha / settings.rank
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for key in self.keys:
            self.a[key] = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, self.width(key)), a=5**0.5))
            self.b[key] = nn.Parameter(torch.zeros(self.width(key), rank))

    def adapt(self, key: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight plus the learned matrix."""
        return weight + self.scale * self.b[key] @ self.a[key], bias


def normalize_columns(weight: Tensor) -> Tensor:
    """Divide the columns of a weight (out, in) by their norms over the outputs, at least 1e-5."""
    return weight / weight.norm(dim=0, keepdim=True).clamp(min=1e-5)


class DoRA(LoRA):
    """Learn the norm of each column of LoRA's weight apart from its direction (Liu et al., ICML 2024, eq. 5)."""

    def __init__(self, config: PromptConfig, settings: LoRASettings):
        super().__init__(config, settings)
        self.magnitude = nn.ParameterDict({key: nn.Parameter(torch.ones(1, self.width(key))) for key in self.keys})

    def init_projections(self, attentions: Attentions) -> None:
        """Start with the norms of the frozen columns."""
        for key, weight in self.frozen_weights(attentions).items():
            self.magnitude[key].data.copy_(weight.norm(dim=0, keepdim=True))

    def adapt(self, key: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return LoRA's weight with the learned norms."""
        weight, bias = super().adapt(key, weight, bias)
        return self.magnitude[key] * normalize_columns(weight), bias


class BitFit(ProjectionAdapter):
    """Learn the biases of the projections (Ben Zaken et al., ACL 2022), as offsets to the frozen ones."""

    def __init__(self, config: PromptConfig, settings: AdapterSettings):
        super().__init__(config, settings)
        self.offset = nn.ParameterDict({key: nn.Parameter(torch.zeros(self.width(key))) for key in self.keys})

    def adapt(self, key: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bias plus the offset."""
        return weight, bias + self.offset[key]
