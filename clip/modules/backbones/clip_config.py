"""What belongs to a weight file and stands beside it: its activation and its tokenizer.

Tensors alone do not tell a CLIP with QuickGELU from one with GELU, and the wrong one costs accuracy
without any error. So somebody must say it, and all who do must agree.
"""

import json
from pathlib import Path
from typing import Any

from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.backbones.clip_tokenizer import OPENAI_VOCABULARY, TOKENIZER_FILES, Tokenizer
from clip.modules.backbones.hub import download
from clip.modules.backbones.tensor_files import first_line
from clip.modules.layers import ACTIVATIONS, HEAD_WIDTH
from clip.utils.errors import UserError

OPENAI_SHA256 = {  # OpenAI's archives, all with QuickGELU; its download links hold these checksums
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
OPENAI_TOKENIZER = "openai/clip-vit-base-patch16"
WIDEST = 1024  # published image towers beyond this width have heads of other widths than 64
EPSILON = 1e-5  # of our LayerNorms


def find_activation(folder: Path, sizes: ClipSizes, sha256: str, asked: str | None) -> str:
    """Find the non-linearity of a CLIP, and check what its configuration says against its tensors.

    Args:
        folder: where the weight file stands.
        sizes: read from its tensors.
        sha256: of the weight file.
        asked: the user's word, a key of ``ACTIVATIONS`` or None.

    Raises:
        UserError: nobody says it, two contradict each other, or a configuration does not fit.
    """
    said = {name: read(folder / name, sizes) for name, read in CONFIGS.items()
            if (folder / name).exists()}  # fmt: skip
    said = {name: activation for name, activation in said.items() if activation}
    if not said and sizes.image_width > WIDEST:
        raise UserError(
            f"{folder} has no {' or '.join(CONFIGS)} of this CLIP, and an image tower of "
            f"{sizes.image_width} channels may have any number of heads; put one there"
        )
    if sha256 in OPENAI_SHA256:
        said[f"OpenAI's {OPENAI_SHA256[sha256]}"] = "quick_gelu"
    if asked:
        said["activation="] = asked
    if not said:
        raise UserError(
            f"{folder} has no {' or '.join(CONFIGS)} that says how this CLIP was trained; "
            f"give activation={' or activation='.join(ACTIVATIONS)}"
        )
    if len(set(said.values())) > 1:
        claims = ", ".join(f"{name} says {activation}" for name, activation in said.items())
        raise UserError(f"the activation of the CLIP in {folder} is in doubt: {claims}")
    return next(iter(said.values()))


def find_tokenizer(folder: Path, sizes: ClipSizes) -> Tokenizer:
    """Read the tokenizer beside a weight file, or take OpenAI's if the vocabulary has its size.

    Raises:
        UserError: there is none, or it is not of this CLIP.
    """
    names = [name for group in TOKENIZER_FILES for name in group]
    if sizes.vocabulary == OPENAI_VOCABULARY and not any((folder / n).exists() for n in names):
        try:
            folder = download(OPENAI_TOKENIZER, names)
        except UserError as error:
            raise UserError(f"{folder} has no tokenizer, and {error}; or put vocab.json and merges.txt there") from None
    tokenizer = Tokenizer.from_folder(folder, sizes.context)
    last = max(tokenizer.vocab.values())
    if not last == tokenizer.end == sizes.vocabulary - 1:
        raise UserError(
            f"{folder}: a tokenizer of {last + 1} tokens whose end of a text is {tokenizer.end}, "
            f"but weights of {sizes.vocabulary} tokens; put the tokenizer of this CLIP there"
        )
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    return config if isinstance(config, dict) else {}


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
    return config[key] if isinstance(config.get(key), dict) else {}


def _compare(path: Path, section: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if section.get(key, value) != value:
            raise UserError(f"{path}: {key} is {section[key]!r}, but this CLIP needs {value!r}")


def _from_hugging_face(path: Path, sizes: ClipSizes) -> str | None:
    """Read the config.json of ``transformers``; None if it is another model's."""
    config = _read_json(path)
    if config.get("model_type") != "clip":
        return None
    wanted = {
        "vision": {"hidden_size": sizes.image_width, "num_hidden_layers": sizes.image_layers,
                   "num_attention_heads": sizes.image_width // HEAD_WIDTH,
                   "patch_size": sizes.patch, "image_size": sizes.image_size,
                   "layer_norm_eps": EPSILON},
        "text": {"hidden_size": sizes.text_width, "num_hidden_layers": sizes.text_layers,
                 "num_attention_heads": sizes.text_width // HEAD_WIDTH,
                 "layer_norm_eps": EPSILON},
    }  # fmt: skip
    found = set()
    for tower, values in wanted.items():
        # Old files hold a second section that overrules the first, as in transformers.
        section = _section(config, f"{tower}_config") | _section(config, f"{tower}_config_dict")
        _compare(path, section, values)
        # An absent key means transformers' default, which is OpenAI's.
        found.add(str(section.get("hidden_act", "quick_gelu")))
    if len(found) > 1 or not found <= ACTIVATIONS.keys():
        raise UserError(f"{path}: hidden_act {sorted(found)}; known: one of {', '.join(ACTIVATIONS)}")
    return found.pop()


def _from_open_clip(path: Path, sizes: ClipSizes) -> str | None:
    """Read open_clip_config.json; None if it does not describe a model."""
    config = _section(_read_json(path), "model_cfg")
    if not config:
        return None
    wanted = {
        "vision_cfg": {"width": sizes.image_width, "layers": sizes.image_layers,
                       "head_width": HEAD_WIDTH, "patch_size": sizes.patch,
                       "image_size": sizes.image_size, "mlp_ratio": 4},
        "text_cfg": {"width": sizes.text_width, "layers": sizes.text_layers,
                     "heads": sizes.text_width // HEAD_WIDTH, "context_length": sizes.context,
                     "vocab_size": sizes.vocabulary, "mlp_ratio": 4},
    }  # fmt: skip
    known = {"embed_dim", "quick_gelu", *wanted}
    sections = [(config, known), *((_section(config, key), set(wanted[key])) for key in wanted)]
    for section, keys in sections:
        # open_clip has many variants; what is switched on must be something that we build too.
        if unknown := [key for key, value in section.items() if value and key not in keys]:
            raise UserError(f"{path}: {', '.join(unknown)} set; only OpenAI's architecture is here")
    for key, values in wanted.items():
        _compare(path, _section(config, key), values)
    return "quick_gelu" if config.get("quick_gelu") else "gelu"


CONFIGS = {"config.json": _from_hugging_face, "open_clip_config.json": _from_open_clip}
