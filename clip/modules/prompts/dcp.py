"""Deep correlated prompting (paper, section 3), as the released forward pass computes it.

Each tower gets three kinds of prompts, a third of the length each, in this order: correlated (eq. 3-5),
modal-common (eq. 8) and dynamic (eq. 6-7). Ablations and the printed formulas are in ``dcp_ablations.py``.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from clip.missing import CASES, MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Attention, bottleneck
from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    PromptConfig,
    PromptMethod,
    TowerInput,
    index_by_case,
    prompt_parameter,
)

TOWERS = {IMAGE: MISSING_IMAGE, TEXT: MISSING_TEXT}  # tower -> missing case in which it has no input


class DynamicPrompts(nn.Module):
    """Prompts of one sample: learned queries of its missing case attend to its own tokens (eq. 6).

    Faithful: one single-head attention, which sees all positions of a text, padding included, and no eq. 7.

    Args:
        length: prompts per sample, P.
        width: channels, D.
        queries: fixed queries, (3, P, D), as in the released code; None for queries that train.
    """

    def __init__(self, length: int, width: int, queries: Tensor | None = None):
        super().__init__()
        if queries is None:
            self.queries = prompt_parameter(len(CASES), length, width)
        else:
            self.register_buffer("queries", queries)
        self.attention = Attention(width, heads=1)

    def forward(self, inputs: TowerInput) -> Tensor:
        """Map the tokens of a tower, (B, L, D), to prompts (B, P, D)."""
        mask = None if inputs.mask is None else inputs.mask[:, None]
        return self.attention(index_by_case(self.queries, inputs.missing_case), inputs.tokens, mask=mask)


class DCP(PromptMethod):
    """Deep correlated prompting.

    Correlated prompts are generated anew for each of the first ``depth`` layers; modal-common and
    dynamic prompts enter at the first layer and are carried on (eq. 1-2).
    """

    unfreeze = ("ln_post", "ln_final", "image_proj")  # Faithful: the released code trains these too

    def __init__(self, config: PromptConfig, settings: None = None):
        super().__init__(config, settings)
        length, widths = config.share_length(3), config.sizes.widths
        config.check_depth("prompt_depth", config.depth)
        joint = widths[IMAGE] + widths[TEXT]
        # Faithful: row 0 starts a tower whose input is present, row 1 one whose input is missing.
        self.initial = nn.ParameterDict({tower: prompt_parameter(2, length, widths[tower]) for tower in TOWERS})
        self.generators = nn.ModuleDict()
        for tower in TOWERS:
            # Faithful: the norm comes before the MLP, not after it as in eq. 4.
            generator = nn.Sequential(nn.LayerNorm(joint), bottleneck(joint, widths[tower]))
            # Faithful: the generators of a tower start as copies of one another.
            self.generators[tower] = nn.ModuleList(deepcopy(generator) for _ in range(config.depth))
        self.common = prompt_parameter(len(CASES), length, widths[TEXT])
        self.projections = nn.ModuleDict({tower: bottleneck(widths[TEXT], widths[tower]) for tower in TOWERS})
        self.dynamic = nn.ModuleDict({tower: DynamicPrompts(length, widths[tower]) for tower in TOWERS})

    def prompts_by_case(self) -> CasePrompts:
        """Return correlated and modal-common prompts, (3, P, D) for each tower and layer."""
        current = {
            tower: torch.stack([self.initial[tower][int(case == missing)] for case in range(len(CASES))])
            for tower, missing in TOWERS.items()
        }
        layers = {tower: [] for tower in TOWERS}
        for image_generator, text_generator in zip(self.generators[IMAGE], self.generators[TEXT], strict=True):
            joint = torch.cat([current[IMAGE], current[TEXT]], dim=-1)  # eq. 5
            current = {IMAGE: image_generator(joint), TEXT: text_generator(joint)}  # eq. 3-4
            for tower in TOWERS:
                layers[tower].append(current[tower])
        for tower in TOWERS:
            layers[tower][0] = torch.cat([layers[tower][0], self.projections[tower](self.common)], dim=1)  # eq. 8
        return layers

    def select(self, name: str, prompts: CasePrompts, inputs: TowerInput) -> list[Tensor]:
        """Select the prompts of each sample's missing case and append its dynamic prompts at the first layer."""
        layers = super().select(name, prompts, inputs)
        dynamic = self.dynamic[name](inputs)  # eq. 6
        layers[0] = torch.cat([layers[0], dynamic.to(layers[0].dtype)], dim=1)
        return layers
