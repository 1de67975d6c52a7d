"""Baselines without prompts: a linear probe on frozen features, and full fine-tuning."""

from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod


class LinearProbe(PromptMethod):
    """Train the classifier on frozen features, zero for a missing modality (paper, section 4.2, "Baseline").

    The prompt length and depth are ignored.
    """

    def prompts_by_case(self) -> CasePrompts:
        """Return no prompts for either modality."""
        return {IMAGE: [], TEXT: []}


class FineTuning(LinearProbe):
    """Train every parameter of the backbone with the classifier, without prompts.

    The prompts' learning rate of 1e-2 destroys what CLIP has learned: start from
    ``learning_rate=1e-5`` and keep the classifier's rate with ``lr_mult=1000``.
    """

    unfreeze = ("backbone",)
