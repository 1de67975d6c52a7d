"""Deep correlated prompting with the parts that Tables 1-3 of the paper exchange, and its printed formulas.

``DCPAblation.build`` returns the plain method of ``dcp.py`` for the default settings.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.layers import bottleneck
from clip.modules.prompts.base import TEXT, CasePrompts, PromptConfig, PromptMethod, TowerInput, prompt_parameter
from clip.modules.prompts.dcp import DCP, TOWERS, DynamicPrompts
from clip.modules.prompts.released_queries import draw_queries
from clip.utils.errors import UserError
from clip.utils.settings import Settings

CORRELATED, COMMON, DYNAMIC = "correlated", "common", "dynamic"  # in the order of the sequence
KINDS = {  # Figure 3: Ours (A), Ours (B), Ours; and no prompts at all
    "A": (CORRELATED,),
    "B": (CORRELATED, DYNAMIC),
    "full": (CORRELATED, COMMON, DYNAMIC),
    "none": (),
}


class DCPSettings(Settings):
    """Settings of DCP; the defaults are the released code's, with dynamic queries that train."""

    prompts: Literal["A", "B", "full", "none"] = Field(
        "full", description="A: correlated; B: correlated and dynamic; full: all three (Figure 3)"
    )
    formulas: Literal["released", "paper"] = Field("released", description="the released code's or the printed ones")
    dynamic_queries: Literal["trained", "fixed"] = Field(
        "trained", description="fixed: drawn from the seed, as released"
    )
    generator: Literal["mlp", "fc", "none"] = Field("mlp", description="none: independent prompts per layer (Table 1)")
    reduction: int = Field(16, ge=1, description="reduction of the generators' hidden width")
    source: Literal["both", "own"] = Field("both", description="towers whose prompts a generator reads (Table 1)")
    dynamic_generator: Literal["attention", "max", "min", "avg"] = Field(
        "attention", description="attention, or pooled tokens (Table 2)"
    )
    dynamic_depth: int = Field(1, ge=1, description="layers with fresh dynamic prompts (Table 2)")
    common_projection: Literal["mlp", "fc"] = Field("mlp", description="projection of the common prompts (Table 3)")
    common_reduction: int = Field(16, ge=1, description="reduction of its hidden width (Table 3)")
    common_depth: int = Field(1, ge=1, description="layers with fresh common prompts (Table 3)")


def build_map(kind: str, width_in: int, width_out: int, reduction: int) -> nn.Module:
    """Build a map between widths: a bottleneck MLP ("mlp") or one linear layer ("fc")."""
    return bottleneck(width_in, width_out, reduction) if kind == "mlp" else nn.Linear(width_in, width_out)


class RefinedPrompts(DynamicPrompts):
    """Dynamic prompts followed by the norm, MLP and norm of eq. 7, which the released code leaves out."""

    def __init__(self, length: int, width: int, queries: Tensor | None = None):
        super().__init__(length, width, queries)
        self.refine = nn.Sequential(nn.LayerNorm(width), bottleneck(width, width), nn.LayerNorm(width))

    def forward(self, inputs: TowerInput) -> Tensor:
        """Map the tokens of a tower, (B, L, D), to prompts (B, P, D)."""
        return self.refine(super().forward(inputs))


class PooledPrompts(nn.Module):
    """Dynamic prompts made of pooled tokens, then projected (Table 2).

    Args:
        pool: ((B, D, L), P) -> (B, D, P).
        length: prompts per sample and layer, P.
        width: channels, D.
        layers: number of layers with prompts; each has a projection of its own.
    """

    def __init__(self, pool: Callable[[Tensor, int], Tensor], length: int, width: int, layers: int):
        super().__init__()
        self.pool, self.length, self.layers = pool, length, layers
        self.projection = nn.Linear(width, layers * width)

    def forward(self, inputs: TowerInput) -> Tensor:
        """Map the tokens of a tower, (B, L, D), padding included, to prompts (B, layers P, D), layer by layer."""
        pooled = self.pool(rearrange(inputs.tokens, "b l d -> b d l"), self.length)
        projected = self.projection(rearrange(pooled, "b d p -> b p d"))
        return rearrange(projected, "b p (n d) -> b (n p) d", n=self.layers)


def adaptive_min_pool1d(x: Tensor, length: int) -> Tensor:
    """Pool (B, D, L) to the minimum of each stretch, (B, D, length)."""
    return -F.adaptive_max_pool1d(-x, length)


POOLS = {"max": F.adaptive_max_pool1d, "min": adaptive_min_pool1d, "avg": F.adaptive_avg_pool1d}


class DCPAblation(PromptMethod):
    """DCP with exchangeable parts; the names of its parameters are those of ``DCP``."""

    Settings = DCPSettings
    unfreeze = DCP.unfreeze

    @classmethod
    def build(cls, config: PromptConfig, settings: DCPSettings) -> PromptMethod:
        """Build ``DCP`` for the default settings and this class for all others."""
        return DCP(config) if settings == DCPSettings() else cls(config, settings)

    def __init__(self, config: PromptConfig, settings: DCPSettings):
        super().__init__(config, settings)
        self.settings, self.third = settings, config.share_length(3)
        depths = {CORRELATED: config.depth, COMMON: settings.common_depth, DYNAMIC: settings.dynamic_depth}
        for kind, depth in depths.items():
            config.check_depth("prompt_depth" if kind == CORRELATED else f"dcp.{kind}_depth", depth)
        # The draw is of the released towers; what is pooled must not depend on the padding.
        for name, needed in {"dynamic_queries": "trained", "dynamic_generator": "attention"}.items():
            if config.single_stream and (value := getattr(settings, name)) != needed:
                raise UserError(f"dcp.{name}={value} is for backbones with two towers; set it to {needed}")
        # A later layer replaces the first positions, so the kinds that go deepest come first.
        self.depths = {kind: depths[kind] for kind in sorted(KINDS[settings.prompts], key=lambda k: -depths[k])}
        # In this order: the random stream of the initial values must not change.
        if CORRELATED in self.depths:
            self._init_correlated(config)
        if COMMON in self.depths:
            widths, reduction = config.sizes.widths, settings.common_reduction
            self.common = prompt_parameter(len(CASES), settings.common_depth * self.third, widths[TEXT])
            self.projections = nn.ModuleDict(
                {t: build_map(settings.common_projection, widths[TEXT], widths[t], reduction) for t in widths}
            )
        if DYNAMIC in self.depths:
            self._init_dynamic(config)

    def _init_correlated(self, config: PromptConfig) -> None:
        settings, widths, depth = self.settings, config.sizes.widths, config.depth
        paper, independent = settings.formulas == "paper", settings.generator == "none"
        # Eq. 3: the prompts of the first layer are parameters of each missing case; released: all are generated.
        self.free_input = paper or independent
        self.free_layers = depth if independent else 1
        self.sources = {tower: tuple(TOWERS) if settings.source == "both" else (tower,) for tower in TOWERS}
        sets, length = len(CASES) if self.free_input else 2, self.free_layers * self.third
        self.initial = nn.ParameterDict({tower: prompt_parameter(sets, length, widths[tower]) for tower in TOWERS})
        self.generators = nn.ModuleDict()
        for tower in TOWERS if depth > self.free_layers * self.free_input else ():
            width_in, width_out = sum(widths[source] for source in self.sources[tower]), widths[tower]
            inner = build_map(settings.generator, width_in, width_out, settings.reduction)
            # Eq. 4: the norm follows the map; released: it comes before.
            layers = (inner, nn.LayerNorm(width_out)) if paper else (nn.LayerNorm(width_in), inner)
            generator = nn.Sequential(*layers)
            count = depth - self.free_layers * self.free_input
            self.generators[tower] = nn.ModuleList(deepcopy(generator) for _ in range(count))

    def _init_dynamic(self, config: PromptConfig) -> None:
        settings, layers = self.settings, self.settings.dynamic_depth
        length, fixed = layers * self.third, settings.dynamic_queries == "fixed"
        queries = draw_queries(config.sizes, length, config.seed) if fixed else {}
        attention = RefinedPrompts if settings.formulas == "paper" else DynamicPrompts
        self.dynamic = nn.ModuleDict()
        for tower, width in config.sizes.widths.items():
            if settings.dynamic_generator == "attention":
                self.dynamic[tower] = attention(length, width, queries.get(tower))
            else:
                self.dynamic[tower] = PooledPrompts(POOLS[settings.dynamic_generator], self.third, width, layers)

    def prompts_by_case(self) -> CasePrompts:
        """Return correlated and modal-common prompts, (3, P, D) for each tower and layer."""
        made: dict[str, CasePrompts] = {}
        for kind in self.depths:
            if kind == CORRELATED:
                made[kind] = self._correlated()
            elif kind == COMMON:
                made[kind] = {t: list(self.projections[t](self.common).chunk(self.depths[kind], dim=1)) for t in TOWERS}
        layers: CasePrompts = {tower: [] for tower in TOWERS}
        for tower in TOWERS:
            for layer in range(max(self.depths.values(), default=0)):
                parts = [prompts[tower][layer] for prompts in made.values() if layer < len(prompts[tower])]
                empty = made[CORRELATED][tower][0][:, :0]  # a layer with dynamic prompts only
                layers[tower].append(torch.cat(parts, dim=1) if parts else empty)
        return layers

    def _correlated(self) -> CasePrompts:
        layers: CasePrompts = {}
        for tower, missing in TOWERS.items():
            rows = [case if self.free_input else int(case == missing) for case in range(len(CASES))]
            initial = torch.stack([self.initial[tower][row] for row in rows])
            layers[tower] = list(initial.chunk(self.free_layers, dim=1))
        for generators in zip(*self.generators.values(), strict=True):
            current = {tower: layers[tower][-1] for tower in TOWERS}
            for tower, generate in zip(TOWERS, generators, strict=True):
                layers[tower].append(generate(torch.cat([current[t] for t in self.sources[tower]], dim=-1)))
        return layers if self.free_input else {tower: prompts[1:] for tower, prompts in layers.items()}

    def select(self, name: str, prompts: CasePrompts, inputs: TowerInput) -> list[Tensor]:
        """Select the prompts of each sample's missing case and insert its dynamic prompts."""
        layers = super().select(name, prompts, inputs)
        if DYNAMIC in self.depths:
            start = self.third * list(self.depths).index(DYNAMIC)  # after the kinds that go deeper
            for layer, dynamic in enumerate(self.dynamic[name](inputs).chunk(self.depths[DYNAMIC], dim=1)):
                rest = layers[layer]
                layers[layer] = torch.cat([rest[:, :start], dynamic.to(rest.dtype), rest[:, start:]], dim=1)
        return layers
