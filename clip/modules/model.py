"""A frozen CLIP, the prompts of one method and a linear head, joined."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clip.errors import UserError
from clip.missing import CASES, MISSING_IMAGE, MISSING_TEXT
from clip.modules.clip_layouts import ClipSizes, tower_states
from clip.modules.prompts import (
    IMAGE,
    PROMPT_TYPES,
    TEXT,
    CasePrompts,
    Frame,
    PromptMethod,
    read_settings,
)
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer

THAWABLE = {  # parts of CLIP that a method may train, and how their parameters' names begin
    "ln_post": ("image_encoder.ln_post.",),
    "ln_final": ("text_encoder.ln_final.",),
    "image_proj": ("image_encoder.proj",),
    "clip": ("image_encoder.", "text_encoder."),
}
HEAD_STD = 0.02
COMPILED_VARIANTS = 64


class Present(NamedTuple):
    """What a batch holds.

    Attributes:
        image_rows: (n,), the rows that have an image.
        text_rows: (m,), the rows that have a text.
        longest: positions of the longest text, start and end included.
    """

    image_rows: Tensor
    text_rows: Tensor
    longest: int


def thawed(parts: Iterable[str]) -> tuple[str, ...]:
    """Give how the names of all parameters of some keys of ``THAWABLE`` begin."""
    return tuple(start for part in parts for start in THAWABLE[part])


def mix(heads: list[tuple[float, Tensor]]) -> Tensor:
    """Sum what several heads give, logits or losses, by their weights."""
    return sum(weight * value for weight, value in heads)


def end_of_text(tokens: Tensor) -> Tensor:
    """Find the first end-of-text token of (B, 77) ids: its id is the largest of all."""
    return tokens.argmax(dim=1)


def count_present(tokens: Tensor, missing_type: Tensor) -> Present:
    """Count what a batch holds; arguments as in ``PromptedCLIP.features``."""
    image_rows = (missing_type != MISSING_IMAGE).nonzero().squeeze(1)
    text_rows = (missing_type != MISSING_TEXT).nonzero().squeeze(1)
    end = end_of_text(tokens[text_rows])
    return Present(image_rows, text_rows, int(end.max()) + 1 if len(end) else 1)


class PromptedCLIP(nn.Module):
    """Classifies pairs of image and text of which one may be missing (paper, section 3).

    Args:
        image_encoder: CLIP's image tower.
        text_encoder: CLIP's text tower.
        prompts: the prompt method.
        num_classes: outputs of the head.
        thaw: keys of ``THAWABLE`` that train too.
    """

    def __init__(
        self,
        image_encoder: VisionTransformer,
        text_encoder: TextTransformer,
        prompts: PromptMethod,
        num_classes: int,
        thaw: tuple[str, ...],
    ):
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.prompts = prompts
        self.thaw = thaw
        embed_dim = image_encoder.proj.shape[1]
        self.classifier = nn.Linear(2 * embed_dim, num_classes)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)
        self._freeze()

    def trainable_names(self) -> list[str]:
        """Name every parameter that trains, as its owners declare them."""
        starts = ("prompts.", "classifier.", *thawed(self.thaw))
        return [name for name, _ in self.named_parameters() if name.startswith(starts)]

    def own_state(self) -> dict[str, Tensor]:
        """Give what a checkpoint holds: what trains, and fixed tensors of the prompts.

        The tensors are the model's own: to write into them is to change the model.
        """
        state, trainable = self.state_dict(), set(self.trainable_names())
        own = (name for name in state if name in trainable or name.startswith("prompts."))
        return {name: state[name] for name in own}

    def _freeze(self) -> None:
        trainable = set(self.trainable_names())
        for start in thawed(self.thaw):
            assert any(name.startswith(start) for name in trainable), start
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)

    def compile_towers(self) -> None:
        """Let torch.compile fuse what stands between the matrix products."""
        # Towers, layers and empty batches are variants of one block, and so are training and test.
        torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
        for encoder in (self.image_encoder, self.text_encoder):
            encoder.transformer.compile_blocks()

    def features(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Present | None = None
    ) -> Tensor:
        """Encode what is there; a missing modality is not encoded and its half is exactly zero.

        Args:
            image: (B, 3, H, W), normalised; the rows of missing images are not read.
            tokens: (B, 77) ids; the rows of missing texts are not read.
            missing_type: (B,), ``COMPLETE``, ``MISSING_TEXT`` or ``MISSING_IMAGE``.
            present: what is there, counted by the loader; None to count it here, for which a GPU
                must be waited for.

        Returns:
            (B, 2 E), the image half first.
        """
        image_rows, text_rows, longest = present or count_present(tokens, missing_type)
        cases = self.prompts.cases()
        # An empty selection still runs: its gradients are zeros, not None, so that AdamW treats a
        # batch without this modality as the published loop does.
        seen = self.encode_image(image[image_rows], cases, missing_type[image_rows])
        read = self.encode_text(tokens[text_rows], cases, missing_type[text_rows], longest)
        halves = []
        for rows, feature in ((image_rows, seen), (text_rows, read)):
            empty = feature.new_zeros(len(missing_type), feature.shape[1])
            halves.append(empty.index_copy(0, rows, feature))
        return torch.cat(halves, dim=1)

    def encode_image(self, image: Tensor, cases: CasePrompts, missing_type: Tensor) -> Tensor:
        """Turn images that are there, (B, 3, H, W), into features (B, E).

        Args:
            image: normalised.
            cases: of ``prompts.cases()``.
            missing_type: (B,), whether their texts are missing.
        """
        tokens = self.image_encoder.embed(image)
        prompts = self.prompts.for_samples(IMAGE, cases, tokens, missing_type)
        return self.image_encoder.encode(tokens, prompts)

    def encode_text(
        self, ids: Tensor, cases: CasePrompts, missing_type: Tensor, longest: int
    ) -> Tensor:
        """Turn texts that are there, (B, 77), into features (B, E).

        Args:
            ids: of tokens.
            cases: of ``prompts.cases()``.
            missing_type: (B,), whether their images are missing.
            longest: as in ``Present``.
        """
        tokens = self.text_encoder.embed(ids)
        prompts = self.prompts.for_samples(TEXT, cases, tokens, missing_type)  # sees all 77
        return self.text_encoder.encode(tokens[:, :longest], prompts, end_of_text(ids))

    def heads(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Present | None = None
    ) -> list[tuple[float, Tensor]]:
        """Give pairs of a weight and logits (B, num_classes); arguments as in ``features``."""
        features = self.features(image, tokens, missing_type, present)
        return self.prompts.heads(features, self.classifier)

    def forward(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Present | None = None
    ) -> Tensor:
        """Give the logits (B, num_classes), the heads mixed; arguments as in ``features``."""
        return mix(self.heads(image, tokens, missing_type, present))


def build_model(
    clip_state: dict[str, Tensor],
    prompt_type: str = "dcp",
    num_classes: int = 23,
    prompt_length: int = 36,
    prompt_depth: int = 6,
    *,
    thaw: tuple[str, ...] | None = None,
    activation: str = "quick_gelu",
    seed: int = 0,
    **settings: object,
) -> PromptedCLIP:
    """Build a model around the weights of a CLIP, which stay frozen.

    Args:
        clip_state: tensors under OpenAI's names; all sizes are read from their shapes.
        prompt_type: a key of ``PROMPT_TYPES``.
        num_classes: outputs of the head.
        prompt_length: prompt tokens in all.
        prompt_depth: layers with fresh prompts.
        thaw: parts of CLIP that train too; None for what the method was published with.
        activation: CLIP's non-linearity, "quick_gelu" or "gelu".
        seed: of the run, for what a method draws apart from its initial weights.
        settings: the method's own, the fields of its ``Settings``.

    Raises:
        UserError: an unknown name, or prompts that do not fit this CLIP.
    """
    own = read_settings(prompt_type, settings)
    if unknown := set(thaw or ()) - THAWABLE.keys():
        raise UserError(f"thaw={sorted(unknown)} is unknown; choose from {', '.join(THAWABLE)}")
    sizes = ClipSizes.of(clip_state)
    image_state, text_state = tower_states(clip_state)
    image_encoder = VisionTransformer(**sizes.image(), activation=activation)
    text_encoder = TextTransformer(**sizes.text(), activation=activation)
    image_encoder.load_state_dict(image_state)
    text_encoder.load_state_dict(text_state)
    frame = Frame(sizes, prompt_length, prompt_depth, num_classes, seed)
    prompts = PROMPT_TYPES[prompt_type](frame, own)
    thaw = prompts.thaw if thaw is None else tuple(thaw)
    return PromptedCLIP(image_encoder, text_encoder, prompts, num_classes, thaw)


def case_vector(case: int, size: int, like: Tensor) -> Tensor:
    """Give a whole batch one missing case, (size,) on the device of ``like``."""
    assert 0 <= case < len(CASES)
    return torch.full((size,), case, dtype=torch.long, device=like.device)
