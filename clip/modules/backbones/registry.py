"""How the weights of each backbone are found and loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.modules.backbones.base import Backbone, TextTokenizer
from clip.modules.backbones.clip import find_weights, load_clip, tokenizer_of
from clip.modules.backbones.vilt import find_vilt, load_vilt, positions_of, vilt_tokenizer_of


@dataclass(frozen=True)
class Weights:
    """The weights of one kind of backbone.

    Attributes:
        load: (vit, activation, the backbone's settings, task) -> it; nothing in its files is run.
        find: vit -> its weight file.
        tokenizer: (vit, the backbone's settings, task) -> its tokenizer; no weights are needed.
        positions: (the backbone's settings, task) -> tokens of a text that are read.
    """

    load: Callable[[str, str | None, Any, str], Backbone]
    find: Callable[[str], Path]
    tokenizer: Callable[[str, Any, str], TextTokenizer]
    positions: Callable[[Any, str], int]


WEIGHTS = {
    "clip": Weights(lambda vit, activation, *_: load_clip(vit, activation), find_weights,
                    lambda vit, *_: tokenizer_of(vit), lambda *_: 77),
    "vilt": Weights(load_vilt, find_vilt, vilt_tokenizer_of, positions_of),
}  # fmt: skip
