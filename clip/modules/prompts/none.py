"""The paper's baseline: frozen towers, zeros for a missing modality, a trained classifier."""

from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod


class LinearProbe(PromptMethod):
    """No prompt anywhere: the backbone is plain (paper, section 4.2, "Baseline").

    Prompt length and depth mean nothing to it.
    """

    def prompts_by_case(self) -> CasePrompts:
        """Give no prompts of either modality."""
        return {IMAGE: [], TEXT: []}
