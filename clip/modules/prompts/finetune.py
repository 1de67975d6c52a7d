"""Full fine-tuning: what the prompt methods are an alternative to."""

from clip.modules.prompts.none import LinearProbe


class FineTuning(LinearProbe):
    """No prompts; every parameter of the backbone trains with the classifier.

    The prompts' learning rate of 1e-2 is far too high for it, it destroys what CLIP has learned:
    start from ``learning_rate=1e-5`` and keep the classifier's by ``lr_mult=1000``.
    """

    unfreeze = ("backbone",)
