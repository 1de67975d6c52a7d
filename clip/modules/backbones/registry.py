"""The backbones by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.modules.backbones import Backbone, TextTokenizer
from clip.modules.backbones.clip import clip_positions, find_clip, load_clip, load_clip_tokenizer
from clip.modules.backbones.vilt import find_vilt, load_vilt, load_vilt_tokenizer, vilt_positions


@dataclass(frozen=True)
class BackboneLoader:
    """How one kind of backbone is found and loaded; nothing in its files is executed.

    Attributes:
        load: loads the backbone, given ``vit``, the activation or None, the backbone's settings and the task.
        find: returns the weight file of ``vit``.
        tokenizer: loads the tokenizer alone, given ``vit``, the backbone's settings and the task.
        positions: returns the number of text tokens read, given the backbone's settings and the task.
    """

    load: Callable[[str, str | None, Any, str], Backbone]
    find: Callable[[str], Path]
    tokenizer: Callable[[str, Any, str], TextTokenizer]
    positions: Callable[[Any, str], int]


BACKBONES = {
    "clip": BackboneLoader(load_clip, find_clip, load_clip_tokenizer, clip_positions),
    "vilt": BackboneLoader(load_vilt, find_vilt, load_vilt_tokenizer, vilt_positions),
}
