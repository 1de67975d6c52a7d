"""Deep correlated prompting (paper, section 3), as the released forward pass computes it.

A third of the prompt length each: correlated, modal-common and dynamic prompts, in this order in
the sequence. Correlated prompts are made anew in each of the first ``depth`` layers; the other two
enter at the input and are carried on. ``formulas="paper"`` follows the printed equations instead.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip.errors import UserError
from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.clip_layouts import ClipSizes
from clip.modules.layers import Attention, bottleneck
from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod
from clip.modules.released_draw import draw_queries

CORRELATED, DYNAMIC, COMMON = "correlated", "dynamic", "common"
VARIANTS = {  # the paper's ablation: Ours (A), Ours (B), Ours
    "A": (CORRELATED,),
    "B": (CORRELATED, DYNAMIC),
    "full": (CORRELATED, DYNAMIC, COMMON),
}
THIRDS = 3
INIT_STD = 0.02


@dataclass(frozen=True)
class Formulas:
    """Where the released code and the paper's equations part.

    Attributes:
        norm_first: the generator's norm stands in front of its MLP (released), not behind (eq. 4).
        free_input: the correlated prompts of layer 0 are parameters (eq. 3), not generated.
        initial: tower -> row of its initial correlated prompts for each missing case; released: one
            for present, one for missing; paper: one a case.
        refine: a norm, an MLP and a norm follow the dynamic prompts' attention (eq. 7).
    """

    norm_first: bool
    free_input: bool
    initial: dict[str, tuple[int, ...]]
    refine: bool


_CASES = (COMPLETE, MISSING_TEXT, MISSING_IMAGE)
_LACKS = {IMAGE: tuple(int(case == MISSING_IMAGE) for case in _CASES),
          TEXT: tuple(int(case == MISSING_TEXT) for case in _CASES)}  # fmt: skip
FORMULAS = {
    "released": Formulas(norm_first=True, free_input=False, initial=_LACKS, refine=False),
    "paper": Formulas(
        norm_first=False, free_input=True, initial={IMAGE: _CASES, TEXT: _CASES}, refine=True
    ),
}
QUERIES = ("trained", "fixed")


@dataclass(frozen=True)
class DCPSettings:
    """The method's own settings.

    Attributes:
        prompts: kinds of prompts, a key of ``VARIANTS``.
        formulas: a key of ``FORMULAS``.
        dynamic_queries: "trained", or "fixed" as drawn from the seed (released code).
        seed: of fixed queries.
    """

    prompts: str = "full"
    formulas: str = "released"
    dynamic_queries: str = "trained"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("prompts", VARIANTS),
            ("formulas", FORMULAS),
            ("dynamic_queries", QUERIES),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f"{name}={value!r} is unknown; choose one of {', '.join(allowed)}")


def initial_prompt(*shape: int) -> nn.Parameter:
    """Draw a learnable prompt from N(0, 0.02)."""
    return nn.Parameter(INIT_STD * torch.randn(*shape))


class DynamicPrompts(nn.Module):
    """Prompts of one sample, read from its own tokens (eq. 6).

    Faithful: one single-head cross-attention of learned queries, which turns any number of tokens
    into P prompts; it sees all positions of a text, padding included.

    Args:
        length: prompts per sample, P.
        width: channels, D.
        refine: a norm, a bottleneck MLP and a norm follow (eq. 7).
        fixed: (3, P, D), queries that do not train; None for learned ones.
    """

    def __init__(self, length: int, width: int, refine: bool, fixed: Tensor | None):
        super().__init__()
        if fixed is None:
            self.queries = initial_prompt(len(CASES), length, width)
        else:
            self.register_buffer("queries", fixed)
        self.attention = Attention(width, heads=1)
        self.refine = nn.Sequential()
        if refine:
            parts = nn.LayerNorm(width), bottleneck(width, width), nn.LayerNorm(width)
            self.refine.extend(parts)

    def forward(self, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Turn X_0 (B, L, D) and the missing cases (B,) into (B, P, D)."""
        return self.refine(self.attention(self.queries[missing_type], tokens))


def generator(width_in: int, width_out: int, norm_first: bool) -> nn.Sequential:
    """Make F of eq. 5: both modalities' prompts (…, D_image + D_text) to a tower's next prompts."""
    mlp = bottleneck(width_in, width_out)
    if norm_first:
        return nn.Sequential(nn.LayerNorm(width_in), mlp)
    return nn.Sequential(mlp, nn.LayerNorm(width_out))


class DeepCorrelatedPrompts(PromptMethod):
    """The paper's method.

    Args:
        sizes: of the CLIP.
        length: prompt tokens in all, a multiple of three.
        depth: layers that get fresh correlated prompts, J.
        settings: fields of ``DCPSettings``.

    Raises:
        UserError: a length, depth or setting that cannot be.
    """

    thaw = ("ln_post", "ln_final", "image_proj")  # Faithful: the released code trains these too

    def __init__(self, *, sizes: ClipSizes, length: int, depth: int, **settings: object):
        super().__init__()
        check_shape(sizes, length, depth)
        chosen = DCPSettings(**settings)
        self.formulas, kinds = FORMULAS[chosen.formulas], VARIANTS[chosen.prompts]
        widths = {IMAGE: sizes.image_width, TEXT: sizes.text_width}
        third = length // THIRDS
        for tower, rows in self.formulas.initial.items():
            self.register_buffer(f"{tower}_rows", torch.tensor(rows), persistent=False)
        self._add_correlated(widths, third, depth)
        self.common = self.projections = self.dynamic = None
        if COMMON in kinds:
            self.common = initial_prompt(len(CASES), third, widths[TEXT])
            self.projections = nn.ModuleDict(
                {tower: bottleneck(widths[TEXT], width) for tower, width in widths.items()}
            )
        if DYNAMIC in kinds:
            fixed = dict.fromkeys(widths)
            if chosen.dynamic_queries == "fixed":
                fixed = draw_queries(sizes, third, chosen.seed)
            self.dynamic = nn.ModuleDict(
                {
                    tower: DynamicPrompts(third, width, self.formulas.refine, fixed[tower])
                    for tower, width in widths.items()
                }
            )

    def _add_correlated(self, widths: dict[str, int], third: int, depth: int) -> None:
        rows = {tower: len(set(of_case)) for tower, of_case in self.formulas.initial.items()}
        self.initial = nn.ParameterDict(
            {tower: initial_prompt(rows[tower], third, width) for tower, width in widths.items()}
        )
        joint = sum(widths.values())
        firsts = {t: generator(joint, w, self.formulas.norm_first) for t, w in widths.items()}
        count = depth - self.formulas.free_input
        # Faithful: the generators of a tower start as copies of one another.
        self.generators = nn.ModuleDict(
            {t: nn.ModuleList(deepcopy(first) for _ in range(count)) for t, first in firsts.items()}
        )

    def cases(self) -> CasePrompts:
        """Make the correlated and common prompts of the three cases: (3, P, D) a layer."""
        image = self.initial[IMAGE][self.image_rows]  # (3, P, D_image)
        text = self.initial[TEXT][self.text_rows]  # (3, P, D_text)
        pairs = [(image, text)] if self.formulas.free_input else []
        for to_image, to_text in zip(*(self.generators[t] for t in (IMAGE, TEXT)), strict=True):
            both = torch.cat([image, text], dim=-1)  # eq. 5
            image, text = to_image(both), to_text(both)
            pairs.append((image, text))
        made = dict(zip((IMAGE, TEXT), map(list, zip(*pairs, strict=True)), strict=True))
        if self.common is not None:
            for tower, layers in made.items():  # eq. 8
                layers[0] = torch.cat([layers[0], self.projections[tower](self.common)], dim=1)
        return made

    def for_samples(
        self, tower: str, cases: CasePrompts, tokens: Tensor, missing_type: Tensor
    ) -> list[Tensor]:
        """Add the samples' dynamic prompts to layer 0; see ``PromptMethod.for_samples``."""
        layers = super().for_samples(tower, cases, tokens, missing_type)
        if self.dynamic is not None:
            own = self.dynamic[tower](tokens, missing_type)
            layers[0] = torch.cat([layers[0], own.to(layers[0].dtype)], dim=1)
        return layers


def check_shape(sizes: ClipSizes, length: int, depth: int) -> None:
    """Refuse prompts that the towers cannot take."""
    if length < THIRDS or length % THIRDS:
        raise UserError(
            f"prompt_length={length} cannot be shared by three kinds of prompts; "
            f"give a multiple of three, such as {max(THIRDS, length // THIRDS * THIRDS)}"
        )
    deepest = min(sizes.image_layers, sizes.text_layers)
    if not 1 <= depth <= deepest:
        raise UserError(
            f"prompt_depth={depth} does not fit this CLIP, whose towers have "
            f"{sizes.image_layers} and {sizes.text_layers} layers; give 1 to {deepest}"
        )
