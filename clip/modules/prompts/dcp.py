"""Deep correlated prompting (paper, section 3), as the released forward pass computes it.

A third of the prompt length each: correlated, modal-common and dynamic prompts, in this order in
the sequence. Correlated prompts are made anew in each of the first ``depth`` layers; the other two
enter at the input and are carried on. ``formulas="paper"`` follows the printed equations instead;
the other settings are those of the paper's ablations.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    PromptConfig,
    PromptMethod,
    check_choice,
    check_whole,
    index_by_case,
    prompt_parameter,
)
from clip.modules.prompts.dcp_parts import (
    EACH_CASE,
    FORMULAS,
    MAPS,
    READERS,
    SOURCES,
    correlated_generator,
)
from clip.modules.prompts.released_queries import draw_queries
from clip.utils.errors import UserError

CORRELATED, COMMON, DYNAMIC = "correlated", "common", "dynamic"  # in the order of the sequence
VARIANTS = {  # the paper's ablation: Ours (A), Ours (B), Ours; and what is left without any
    "A": (CORRELATED,),
    "B": (CORRELATED, DYNAMIC),
    "full": (CORRELATED, COMMON, DYNAMIC),
    "none": (),
}
INDEPENDENT = "none"  # the generator of prompts that no other prompts generate
CHOICES = {  # setting -> what it may be
    "prompts": VARIANTS,
    "formulas": FORMULAS,
    "dynamic_queries": ("trained", "fixed"),
    "generator": (*MAPS, INDEPENDENT),
    "source": SOURCES,
    "dynamic_generator": READERS,
    "common_projection": MAPS,
}
# The draw is of the released towers; what is pooled must not depend on the padding.
NOT_SINGLE_STREAM = {"dynamic_queries": "trained", "dynamic_generator": "attention"}
NUMBERS = ("reduction", "dynamic_depth", "common_depth", "common_reduction")
THIRDS = 3


@dataclass(frozen=True)
class DCPSettings:
    """The method's own settings.

    Attributes:
        prompts: kinds of prompts, a key of ``VARIANTS``.
        formulas: a key of ``FORMULAS``.
        dynamic_queries: "trained", or "fixed" as drawn from the seed (released code).
        generator: of correlated prompts: a key of ``MAPS``, or "none" for independent prompts of
            each missing case and layer (Table 1).
        reduction: of the generators' hidden width.
        source: whose prompts a generator reads, a key of ``SOURCES`` (Table 1).
        dynamic_generator: a key of ``READERS`` (Table 2).
        dynamic_depth: layers with fresh dynamic prompts (Table 2).
        common_projection: a key of ``MAPS`` (Table 3).
        common_reduction: of its hidden width (Table 3).
        common_depth: layers with fresh common prompts (Table 3).
    """

    prompts: str = "full"
    formulas: str = "released"
    dynamic_queries: str = "trained"
    generator: str = "mlp"
    reduction: int = 16
    source: str = "both"
    dynamic_generator: str = "attention"
    dynamic_depth: int = 1
    common_projection: str = "mlp"
    common_reduction: int = 16
    common_depth: int = 1

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            check_choice(f"dcp.{name}", getattr(self, name), allowed)
        for name in NUMBERS:
            check_whole(f"dcp.{name}", getattr(self, name))


class DCP(PromptMethod):
    """The paper's method.

    Raises:
        UserError: a length or depth that does not fit.
    """

    Settings = DCPSettings
    unfreeze = ("ln_post", "ln_final", "image_proj")  # Faithful: the released code trains these too

    def __init__(self, frame: PromptConfig, settings: DCPSettings):
        super().__init__(frame, settings)
        check_shape(frame, settings)
        depths = {CORRELATED: frame.depth, COMMON: settings.common_depth,
                  DYNAMIC: settings.dynamic_depth}  # fmt: skip
        # A later layer replaces the first positions, so the kinds that go deepest stand first.
        kinds = sorted(VARIANTS[settings.prompts], key=lambda kind: -depths[kind])
        self.depths = {kind: depths[kind] for kind in kinds}
        self.third = frame.length // THIRDS
        self.formulas = FORMULAS[settings.formulas]
        # In this order: the random stream of the initial values must not change.
        adders = {CORRELATED: self._add_correlated, COMMON: self._add_common,
                  DYNAMIC: self._add_dynamic}  # fmt: skip
        for kind, add in adders.items():
            if kind in self.depths:
                add(frame, settings)

    def _add_correlated(self, frame: PromptConfig, settings: DCPSettings) -> None:
        self.free_layers, widths = 1, frame.widths
        if settings.generator == INDEPENDENT:
            self.free_layers = frame.depth
            rows = dict.fromkeys(widths, EACH_CASE)
            self.formulas = replace(self.formulas, free_input=True, initial=rows)
        for tower, rows in self.formulas.initial.items():
            self.register_buffer(f"{tower}_rows", torch.tensor(rows), persistent=False)
        self.initial = nn.ParameterDict(
            {
                tower: prompt_parameter(len(set(rows)), self.free_layers * self.third, widths[tower])
                for tower, rows in self.formulas.initial.items()
            }
        )
        self.sources = {tower: SOURCES[settings.source](tower) for tower in widths}
        count = frame.depth - self.free_layers * self.formulas.free_input
        self.generators = nn.ModuleDict()
        for tower, width in widths.items() if count else ():
            shape = sum(widths[source] for source in self.sources[tower]), width
            inner = MAPS[settings.generator](*shape, settings.reduction)
            first = correlated_generator(inner, shape, self.formulas.norm_first)
            # Faithful: the generators of a tower start as copies of one another.
            self.generators[tower] = nn.ModuleList(deepcopy(first) for _ in range(count))

    def _add_common(self, frame: PromptConfig, settings: DCPSettings) -> None:
        widths, length = frame.widths, settings.common_depth * self.third
        self.common = prompt_parameter(len(CASES), length, widths[TEXT])
        make = MAPS[settings.common_projection]
        self.projections = nn.ModuleDict(
            {t: make(widths[TEXT], width, settings.common_reduction) for t, width in widths.items()}
        )

    def _add_dynamic(self, frame: PromptConfig, settings: DCPSettings) -> None:
        fixed = dict.fromkeys(frame.widths)
        if settings.dynamic_queries == "fixed":
            length = settings.dynamic_depth * self.third
            fixed = draw_queries(frame.sizes, length, frame.seed)
        make, layers = READERS[settings.dynamic_generator], settings.dynamic_depth
        self.dynamic = nn.ModuleDict(
            {
                tower: make(self.third, width, layers, refine=self.formulas.refine,
                            fixed=fixed[tower])
                for tower, width in frame.widths.items()
            }
        )  # fmt: skip

    def prompts_by_case(self) -> CasePrompts:
        """Make the correlated and common prompts of the three cases: (3, P, D) a layer and set."""
        makers = {CORRELATED: self._correlated, COMMON: self._common}
        made = {kind: makers[kind]() for kind in self.depths if kind in makers}
        out: CasePrompts = {IMAGE: [], TEXT: []}
        for tower, layers in out.items():
            for layer in range(max(self.depths.values(), default=0)):
                parts = [of[tower][layer] for of in made.values() if layer < len(of[tower])]
                empty = made[CORRELATED][tower][0][:, :0]  # a layer of dynamic prompts alone
                layers.append(torch.cat(parts, dim=1) if parts else empty)
        return out

    def _correlated(self) -> CasePrompts:
        image = index_by_case(self.initial[IMAGE], self.image_rows).chunk(self.free_layers, dim=1)
        text = index_by_case(self.initial[TEXT], self.text_rows).chunk(self.free_layers, dim=1)
        made = {IMAGE: list(image), TEXT: list(text)}  # (3, P, D_image) and (3, P, D_text) a layer
        now = {tower: layers[-1] for tower, layers in made.items()}
        if not self.formulas.free_input:
            made = {IMAGE: [], TEXT: []}
        for steps in zip(*self.generators.values(), strict=True):
            read = {t: torch.cat([now[s] for s in self.sources[t]], dim=-1) for t in now}
            now = {t: step(read[t]) for t, step in zip(self.generators, steps, strict=True)}
            for tower, layers in made.items():
                layers.append(now[tower])
        return made

    def _common(self) -> CasePrompts:
        return {
            tower: list(project(self.common).chunk(self.depths[COMMON], dim=1))  # eq. 8
            for tower, project in self.projections.items()
        }

    def select(
        self,
        name: str,
        cases: CasePrompts,
        tokens: Tensor,
        missing_type: Tensor,
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Add the samples' dynamic prompts; see ``PromptMethod.select``."""
        layers = super().select(name, cases, tokens, missing_type, mask)
        if DYNAMIC in self.depths:
            place = self.third * list(self.depths).index(DYNAMIC)  # behind the deeper kinds
            own = self.dynamic[name](tokens, missing_type, mask)
            for layer, prompts in enumerate(own.chunk(self.depths[DYNAMIC], dim=1)):
                rest = layers[layer]
                parts = rest[:, :place], prompts.to(rest.dtype), rest[:, place:]
                layers[layer] = torch.cat(parts, dim=1)
        return layers


def check_shape(frame: PromptConfig, settings: DCPSettings) -> None:
    """Refuse prompts that the towers cannot take."""
    if frame.length < THIRDS or frame.length % THIRDS:
        raise UserError(
            f"prompt_length={frame.length} cannot be shared by three kinds of prompts; "
            f"give a multiple of three, such as {max(THIRDS, frame.length // THIRDS * THIRDS)}"
        )
    frame.check_depth("prompt_depth", frame.depth)
    frame.check_depth("dcp.dynamic_depth", settings.dynamic_depth)
    frame.check_depth("dcp.common_depth", settings.common_depth)
    for name, needed in NOT_SINGLE_STREAM.items():
        if frame.single_stream and getattr(settings, name) != needed:
            raise UserError(f"dcp.{name}={getattr(settings, name)} is for backbones of two towers; give {needed}")
