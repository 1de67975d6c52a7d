"""What every prompt method tells the towers."""

from torch import Tensor, nn

IMAGE, TEXT = "image", "text"  # the two towers
CasePrompts = dict[str, list[Tensor]]  # tower -> layer -> (3 missing cases, P, D)


class PromptMethod(nn.Module):
    """Which tokens enter which tower at which layer, for the three missing cases.

    A method lives in one file: it subclasses this, fills ``cases`` and, if some of its prompts
    depend on the sample, extends ``for_samples``. All its parameters train.

    Attributes:
        thaw: parts of the frozen CLIP that train along with it (keys of ``model.THAWABLE``).
    """

    thaw: tuple[str, ...] = ()

    def cases(self) -> CasePrompts:
        """Make the prompts of the three missing cases; called once a step, whatever its batch."""
        raise NotImplementedError

    def for_samples(
        self, tower: str, cases: CasePrompts, tokens: Tensor, missing_type: Tensor
    ) -> list[Tensor]:
        """Give each sample the prompts of its missing case.

        Args:
            tower: ``IMAGE`` or ``TEXT``.
            cases: what ``cases()`` made in this step.
            tokens: X_0 of that tower, (B, L, D), padding included.
            missing_type: (B,), the samples' missing cases.

        Returns:
            One (B, P, D) a prompted layer, as ``vision_transformer_prompts`` takes them.
        """
        return [layer[missing_type] for layer in cases[tower]]
