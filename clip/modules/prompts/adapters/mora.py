"""MoRA (Zhao et al., ICLR 2026): low-rank weights that the towers share through their Gram matrices."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from clip.modules.layers import INIT_STD
from clip.modules.prompts.adapters.lora import AdapterSettings, ProjectionAdapter, normalize_columns
from clip.modules.prompts.base import IMAGE, TEXT, Attentions, PromptConfig
from clip.utils.errors import UserError

OTHER = {IMAGE: TEXT, TEXT: IMAGE}


class MoRASettings(AdapterSettings):
    """Settings of MoRA; published: qk, rank 4, alpha 0.001 (MM-IMDb), qv, 4, 0.01 (Food-101), kv, 8, 0.1 (Memes)."""

    projections: Literal["q", "k", "v", "qk", "qv", "kv", "qkv"] = Field("qk", description="projections that change")
    rank: int = Field(4, ge=1, description="rank of the learned matrices")
    alpha: float = Field(0.001, gt=0, description="their factor")
    start: Literal["released", "mild"] = Field(
        "released", description="mild: the projections start as the frozen ones, which the released start disturbs"
    )


class MoRA(ProjectionAdapter):
    """Add a symmetric matrix shared with the other tower and one of its own to each projection.

    W' = m_s · col(W + alpha S) + m_p · col(W + alpha M), where col divides each column by its norm. With the pair A, B
    that the towers share in a layer, S is A (BᵀB) Aᵀ in the text tower and B (AᵀA) Bᵀ in the image tower; M is the
    product of a pair of the projection's own. Published with ``missing=dummy``; its dropout of the inputs is left out.
    """

    Settings = MoRASettings

    def __init__(self, config: PromptConfig, settings: MoRASettings):
        if config.single_stream:
            raise UserError("mora shares weights between two towers; choose backbone=clip or coca")
        super().__init__(config, settings)
        self.alpha, self.mild = settings.alpha, settings.start == "mild"
        rank, std = settings.rank, settings.rank**-0.5
        shared_std = INIT_STD if self.mild else std
        # A for the text tower, B for the image tower; layers are counted from the first that changes.
        self.shared = nn.ParameterDict()
        self.own_out, self.own_in = nn.ParameterDict(), nn.ParameterDict()  # their product, transposed, is M
        self.shared_magnitude, self.own_magnitude = nn.ParameterDict(), nn.ParameterDict()
        for tower, width in self.widths.items():
            for i in range(settings.layers):
                self.shared[f"{tower}_{i}"] = nn.Parameter(shared_std * torch.randn(width, rank))
        for key in self.keys:
            self.own_in[key] = nn.Parameter(std * torch.randn(self.width(key), rank))
            self.own_out[key] = nn.Parameter(torch.zeros(rank, self.width(key)))
            for magnitude in (self.shared_magnitude, self.own_magnitude):
                magnitude[key] = nn.Parameter(torch.ones(1, self.width(key)))

    def init_projections(self, attentions: Attentions) -> None:
        """Start both magnitudes with the norms of the frozen columns, as released; with ``mild``, with half of them."""
        for key, weight in self.frozen_weights(attentions).items():
            for magnitude in (self.shared_magnitude, self.own_magnitude):
                magnitude[key].data.copy_(weight.norm(dim=0, keepdim=True) / (1 + self.mild))

    def adapt(self, key: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return W' and the frozen bias."""
        tower, layer, _ = key.split("_")
        i = int(layer) - self.layers[tower].start
        here, other = self.shared[f"{tower}_{i}"], self.shared[f"{OTHER[tower]}_{i}"]
        shared = here @ (other.T @ other) @ here.T
        own = (self.own_in[key] @ self.own_out[key]).T
        shared, own = (normalize_columns(weight + self.alpha * change) for change in (shared, own))
        return self.shared_magnitude[key] * shared + self.own_magnitude[key] * own, bias
