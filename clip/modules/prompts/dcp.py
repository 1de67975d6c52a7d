"""Deep correlated prompting (paper, section 3), as the released forward pass computes it.

A third of the prompt length each: correlated, modal-common and dynamic prompts, in this order in
the sequence. Correlated prompts are made anew in each of the first ``depth`` layers; the other two
enter at the input and are carried on.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from clip.errors import UserError
from clip.missing import CASES, MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Attention, bottleneck
from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod

CORRELATED, DYNAMIC, COMMON = "correlated", "dynamic", "common"
VARIANTS = {  # the paper's ablation: Ours (A), Ours (B), Ours
    "A": (CORRELATED,),
    "B": (CORRELATED, DYNAMIC),
    "full": (CORRELATED, DYNAMIC, COMMON),
}
THIRDS = 3
INIT_STD = 0.02
PRESENT, MISSING = 0, 1  # rows of the initial correlated prompts of one modality


def initial_prompt(*shape: int) -> nn.Parameter:
    """Draw a learnable prompt from N(0, 0.02)."""
    return nn.Parameter(INIT_STD * torch.randn(*shape))


class DynamicPrompts(nn.Module):
    """Prompts of one sample, read from its own tokens (eq. 6).

    Faithful: one single-head cross-attention of learned queries, without the norms and the MLP of
    eq. 7; it sees all positions of a text, padding included.

    Args:
        length: prompts per sample, P.
        width: channels, D.
    """

    def __init__(self, length: int, width: int):
        super().__init__()
        self.queries = initial_prompt(len(CASES), length, width)
        self.attention = Attention(width, heads=1)

    def forward(self, tokens: Tensor, missing_type: Tensor) -> Tensor:
        """Turn X_0 (B, L, D) and the missing cases (B,) into (B, P, D)."""
        return self.attention(self.queries[missing_type], tokens)


class Generator(nn.Sequential):
    """F of eq. 5: both modalities' prompts (…, D_image + D_text) to one tower's next prompts.

    Faithful: the norm stands in front of the bottleneck, where eq. 4 prints it behind.
    """

    def __init__(self, width_in: int, width_out: int):
        super().__init__(nn.LayerNorm(width_in), bottleneck(width_in, width_out))


class DeepCorrelatedPrompts(PromptMethod):
    """The paper's method.

    Args:
        widths: tower -> channels of its tokens.
        layers: tower -> number of its blocks.
        length: prompt tokens in all, a multiple of three.
        depth: layers that get fresh correlated prompts, J.
        prompts: a key of ``VARIANTS``.

    Raises:
        UserError: a length, depth or variant that cannot be.
    """

    thaw = ("ln_post", "ln_final", "image_proj")  # Faithful: the released code trains these too

    def __init__(
        self,
        *,
        widths: dict[str, int],
        layers: dict[str, int],
        length: int,
        depth: int,
        prompts: str,
    ):
        super().__init__()
        check_shape(layers, length, depth, prompts)
        third = length // THIRDS
        joint = sum(widths.values())
        self.initial = nn.ParameterDict(
            {tower: initial_prompt(2, third, width) for tower, width in widths.items()}
        )
        # Faithful: the generators of a tower start as copies of one another.
        self.generators = nn.ModuleDict(
            {
                tower: nn.ModuleList(deepcopy(first) for _ in range(depth))
                for tower, first in ((t, Generator(joint, w)) for t, w in widths.items())
            }
        )
        kinds = VARIANTS[prompts]
        self.common = self.projections = self.dynamic = None
        if COMMON in kinds:
            self.common = initial_prompt(len(CASES), third, widths[TEXT])
            self.projections = nn.ModuleDict(
                {tower: bottleneck(widths[TEXT], width) for tower, width in widths.items()}
            )
        if DYNAMIC in kinds:
            self.dynamic = nn.ModuleDict(
                {tower: DynamicPrompts(third, width) for tower, width in widths.items()}
            )
        for tower, absent in ((IMAGE, MISSING_IMAGE), (TEXT, MISSING_TEXT)):
            rows = [MISSING if case == absent else PRESENT for case in range(len(CASES))]
            self.register_buffer(f"{tower}_rows", torch.tensor(rows), persistent=False)

    def cases(self) -> CasePrompts:
        """Make the correlated and common prompts of the three cases: (3, P, D) a layer."""
        image = self.initial[IMAGE][self.image_rows]  # (3, P, D_image)
        text = self.initial[TEXT][self.text_rows]  # (3, P, D_text)
        made: CasePrompts = {IMAGE: [], TEXT: []}
        for to_image, to_text in zip(*(self.generators[t] for t in (IMAGE, TEXT)), strict=True):
            both = torch.cat([image, text], dim=-1)  # eq. 5
            image, text = to_image(both), to_text(both)
            made[IMAGE].append(image)
            made[TEXT].append(text)
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


def check_shape(layers: dict[str, int], length: int, depth: int, prompts: str) -> None:
    """Refuse prompt settings that the towers cannot take."""
    if prompts not in VARIANTS:
        raise UserError(f"prompts={prompts!r} is unknown; choose one of {', '.join(VARIANTS)}")
    if length < THIRDS or length % THIRDS:
        raise UserError(
            f"prompt_length={length} cannot be shared by three kinds of prompts; "
            f"give a multiple of three, such as {max(THIRDS, length // THIRDS * THIRDS)}"
        )
    deepest = min(layers.values())
    if not 1 <= depth <= deepest:
        raise UserError(
            f"prompt_depth={depth} does not fit this CLIP, whose towers have "
            f"{layers[IMAGE]} and {layers[TEXT]} layers; give 1 to {deepest}"
        )
