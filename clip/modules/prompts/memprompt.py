"""MemPrompt (Zhao et al., IJCAI 2025): prompts that the tokens entering a layer read from a learned memory."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import INIT_STD, LayerInput, Prepended, PromptEntry, bottleneck
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

SLOTS, READ = 16, 5  # slots of a memory, and how many of them a sample reads


class Memory(nn.Module):
    """Each slot holds one key and P prompts; a query reads those of the keys with the largest cosines."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.keys = nn.Parameter(nn.init.kaiming_normal_(torch.empty(SLOTS, width), a=5**0.5))
        self.prompts = nn.Parameter(nn.init.kaiming_normal_(torch.empty(SLOTS, length, width), a=5**0.5))

    def forward(self, query: Tensor) -> Tensor:
        """Map (B, D) to prompts (B, P, D), weighted by the softmax of the cosines that were selected."""
        cosines = F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T
        top, slots = cosines.topk(READ, dim=1)
        weights = torch.zeros_like(cosines).scatter(1, slots, top.softmax(dim=1))
        return (weights @ self.prompts.flatten(1).to(weights.dtype)).unflatten(1, self.prompts.shape[1:])


class MemPrompt(PromptMethod):
    """Prompts of each layer and modality: half are read from a memory, half belong to the missing case.

    The query of a modality is the element-wise maximum of its tokens that enter the layer; padding does not count,
    unlike in the released code, where the result would depend on the batch. In a single stream the prompts of all
    layers are kept; with two towers, those of a layer replace those of the layer before (not published).
    """

    def __init__(self, config: PromptConfig, settings: None = None):
        super().__init__(config, settings)
        config.check_depth("prompt_depth", config.depth)
        self.single_stream, widths = config.single_stream, config.sizes.widths
        length = config.share_length(2)
        self.missing_text, self.missing_image = (prompt_parameter(config.depth, length, widths[TEXT]) for _ in range(2))
        self.memories, self.shared = nn.ModuleDict(), nn.ModuleDict()
        for modality, width in widths.items():
            self.memories[modality] = nn.ModuleList(Memory(length, width) for _ in range(config.depth))
            self.shared[modality] = nn.ModuleList(bottleneck(widths[TEXT], width) for _ in range(config.depth))
        for name, parameter in self.shared.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=INIT_STD)

    def prompts_by_case(self) -> CasePrompts:
        """Return the shared prompts of each modality and layer, (3, P, D)."""
        complete = self.missing_text + self.missing_image
        cases = {MISSING_TEXT: self.missing_text, MISSING_IMAGE: self.missing_image}
        start = torch.stack([cases.get(case, complete) for case in range(3)], dim=1)  # (layers, 3, P, D)
        shared = {name: [layer(x) for layer, x in zip(m, start, strict=True)] for name, m in self.shared.items()}
        if not self.single_stream:
            return shared
        return {"joint": [torch.cat(pair, dim=1) for pair in zip(shared[TEXT], shared[IMAGE], strict=True)]}

    def select(self, name: str, prompts: CasePrompts, inputs: TowerInput) -> list[PromptEntry]:
        """Return a function of the entering tokens for each layer; see ``PromptMethod.select``."""
        return [
            partial(self.read, name, layer, inputs.num_text, index_by_case(shared, inputs.missing_case))
            for layer, shared in enumerate(prompts[name])
        ]

    def read(self, name: str, layer: int, num_text: int, shared: Tensor, inputs: LayerInput) -> PromptEntry:
        """Return the prompts of a layer from the tokens that enter it."""
        tokens = inputs.tokens
        if inputs.content is not None:
            tokens = tokens.masked_fill(~inputs.content[..., None], -torch.inf)
        parts = {name: tokens}
        if self.single_stream:
            parts = {TEXT: tokens[:, :num_text], IMAGE: tokens[:, num_text:]}
        own = [self.memories[modality][layer](part.amax(dim=1)) for modality, part in parts.items()]
        read = torch.cat([*own, shared.to(own[0].dtype)], dim=1)
        return Prepended(read) if self.single_stream else read
