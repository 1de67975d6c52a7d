"""Base class of methods that put a head or a loss on top of the prompts of another method."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from clip.modules.layers import InputProjection
from clip.modules.prompts.base import Attentions, CasePrompts, PromptConfig, PromptMethod


class OnTop(PromptMethod):
    """Delegate to ``base``, a method that is built with its default settings; subclasses replace a part."""

    def __init__(self, config: PromptConfig, base: type[PromptMethod]):
        super().__init__(config)
        self.base = base.build(config, base.Settings())
        self.unfreeze = self.base.unfreeze

    def prompts_by_case(self) -> CasePrompts:
        """Return the prompts of the base method."""
        return self.base.prompts_by_case()

    def select(self, *args: Any) -> list:
        """Select from the prompts of the base method; see ``PromptMethod.select``."""
        return self.base.select(*args)

    def init_projections(self, attentions: Attentions) -> None:
        """Initialise the base method; see ``PromptMethod.init_projections``."""
        self.base.init_projections(attentions)

    def input_projections(self, attentions: Attentions) -> Mapping[str, Mapping[int, InputProjection]]:
        """Return the projections of the base method; see ``PromptMethod.input_projections``."""
        return self.base.input_projections(attentions)

    def heads(self, features: Tensor, classifier: nn.Module, missing_case: Tensor) -> list[tuple[float, Tensor]]:
        """Return the heads of the base method; see ``PromptMethod.heads``."""
        return self.base.heads(features, classifier, missing_case)

    def auxiliary_loss(self) -> Tensor | None:
        """Return the auxiliary loss of the base method."""
        return self.base.auxiliary_loss()

    def prepare(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Prepare the base method; see ``PromptMethod.prepare``."""
        self.base.prepare(model, batches)
