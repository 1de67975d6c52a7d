"""Registry of the backbones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from clip.modules.backbones import Backbone, TextTokenizer
from clip.modules.backbones.clip import find_clip, load_clip, load_clip_tokenizer
from clip.modules.backbones.coca import CONTEXT, find_coca, load_coca, load_coca_tokenizer
from clip.modules.backbones.vilt import find_vilt, load_vilt, load_vilt_tokenizer, vilt_positions


class BackboneLoader(NamedTuple):
    """Functions that find and load one kind of backbone; the settings are those of the backbone."""

    load: Callable[[str, str | None, Any, str], Backbone]  # of vit, activation, settings, task
    find: Callable[[str], Path]  # the weight file of vit
    tokenizer: Callable[[str, Any, str], TextTokenizer]  # of vit, settings, task; needs no weights
    positions: Callable[[Any, str], int]  # text tokens read, of settings, task


BACKBONES = {
    "clip": BackboneLoader(load_clip, find_clip, load_clip_tokenizer, lambda settings, task: 77),
    "coca": BackboneLoader(load_coca, find_coca, load_coca_tokenizer, lambda settings, task: CONTEXT),
    "vilt": BackboneLoader(load_vilt, find_vilt, load_vilt_tokenizer, vilt_positions),
}
