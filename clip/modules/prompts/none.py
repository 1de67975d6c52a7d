"""The paper's baseline: frozen towers, zeros for a missing modality, a trained classifier."""

from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod


class NoPrompts(PromptMethod):
    """No prompt anywhere: the towers are plain CLIP (paper, section 4.2, "Baseline").

    It takes the arguments of every method and needs none of them.
    """

    def __init__(self, **_: object):
        super().__init__()

    def cases(self) -> CasePrompts:
        """Give no prompts to either tower."""
        return {IMAGE: [], TEXT: []}
