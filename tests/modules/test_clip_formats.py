"""One CLIP written in every format that `vit=` takes: equal tensors, equal features."""

import gzip
import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from clip.missing import COMPLETE
from clip.modules import build_model
from clip.modules.backbones import Backbone
from clip.modules.backbones.clip import load_clip
from clip.modules.backbones.clip_tokenizer import Tokenizer, vocabulary
from clip.modules.backbones.tensor_files import sha256_of
from clip.modules.layers import ResidualAttentionBlock
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer, finish
from tests import tiny

pytestmark = [  # its successor writes no archives of this kind, but OpenAI's files are such
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
OPENAI_MERGES = 48_894
CONSTANTS = {"input_resolution": 16, "context_length": 77, "vocab_size": 560}


class OpenAIClip(torch.nn.Module):
    """OpenAI's module tree: its names, half precision, its constants, masks and all."""

    def __init__(self, frozen: Backbone):
        super().__init__()
        sizes = frozen.sizes
        self.visual = VisionTransformer(sizes, frozen.activation)
        text = TextTransformer(sizes, frozen.activation)
        for name in ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"):
            setattr(self, name, getattr(text, name))
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))
        self.load_state_dict(frozen.state)
        self.half()
        for name, value in CONSTANTS.items():
            self.register_buffer(name, torch.tensor(value))
        for block in self.modules():
            if isinstance(block, ResidualAttentionBlock):
                block.attn_mask = torch.zeros(77, 77)

    def forward(self, image, tokens):
        seen = finish(self.visual.encode(self.visual.embed(image), []))
        text = self.token_embedding(tokens) + self.positional_embedding
        read = finish(self.transformer(text, [], tokens.argmax(1)))
        return self.logit_scale.exp() * seen @ (self.ln_final(read) @ self.text_projection).T


class Holder(torch.nn.Module):
    """A module for `torch.jit.script`, which the towers' einops patterns do not pass."""

    def __init__(self, module):
        super().__init__()
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in module.named_children():
            setattr(self, name, Holder(child))
        self.sizes, self.names = [1, 2], {"a": 1}  # lists and dicts have types in an archive
        if isinstance(module, ResidualAttentionBlock):
            self.attn_mask = module.attn_mask  # an attribute, no buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def traced(frozen, path):
    image, tokens, _ = tiny.batch([COMPLETE] * 2, frozen.sizes)
    torch.jit.trace(OpenAIClip(frozen), (image.half(), tokens)).save(path)


def scripted(frozen, path):
    torch.jit.script(Holder(OpenAIClip(frozen))).save(path)


def open_clip(frozen, path, **state):
    state = {f"module.{name}": tensor for name, tensor in frozen.state.items()} | state
    torch.save({"epoch": 3, "name": "a run", "state_dict": state}, path)
    model = {
        "embed_dim": tiny.SIZES.embed_dim,
        "quick_gelu": frozen.activation == "quick_gelu",
        "vision_cfg": {"image_size": 16, "layers": 3, "width": 128, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": frozen.sizes.vocabulary, "width": 64, "heads": 1, "layers": 4},
    }
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3}}
    (path.parent / "open_clip_config.json").write_text(json.dumps(config))


def legacy(frozen, path):
    torch.save(frozen.state, path, _use_new_zipfile_serialization=False)


# file -> (writer, numbers of 16 bits, the file does not say its activation)
FILES = {
    "openai.safetensors": (lambda frozen, path: save_file(frozen.state, path), False, True),
    "plain.pt": (lambda frozen, path: torch.save(frozen.state, path), False, True),
    "plain.bin": (legacy, False, True),
    "renamed.bin": (lambda frozen, path: save_file(frozen.state, path), False, True),
    "open_clip_pytorch_model.bin": (open_clip, False, False),
    "traced.pt": (traced, True, True),
    "scripted.pt": (scripted, True, True),
}


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def frozen(request, tmp_path_factory):
    return load_clip(str(tiny.write_clip(tmp_path_factory.mktemp("clip") / "x", request.param)))


def assert_same(found, frozen, half=False):
    """Equal tensors under the same names, and so equal features."""
    wanted = {n: t.half().float() if half else t for n, t in frozen.state.items()}
    assert found.state.keys() == wanted.keys()
    assert all(torch.equal(found.state[name], wanted[name]) for name in wanted)
    assert all(tensor.dtype == torch.float32 for tensor in found.state.values())
    image, _, complete = tiny.batch([COMPLETE] * len(tiny.TEXTS))
    first, second = (
        build_model(state, "none", 2, activation=clip.activation)
        .eval()
        .features(image, clip.tokenizer(tiny.TEXTS), complete)
        for state, clip in ((found.state, found), (wanted, frozen))
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_every_format(frozen, tmp_path, file):
    write, half, silent = FILES[file]
    frozen.tokenizer.save(tmp_path)
    write(frozen, tmp_path / file)
    found = load_clip(str(tmp_path / file), frozen.activation if silent else None)
    assert_same(found, frozen, half)
    assert found.sha256 == sha256_of(tmp_path / file)


def test_the_archives_are_torchscript_with_more_than_weights(frozen, tmp_path):
    traced(frozen, tmp_path / "a.pt")
    scripted(frozen, tmp_path / "b.pt")
    for path in (tmp_path / "a.pt", tmp_path / "b.pt"):
        names = torch.jit.load(path).state_dict().keys()
        assert names == frozen.state.keys() | CONSTANTS.keys()


def test_what_transformers_writes_loads_to_equal_tensors(frozen, tmp_path):
    CLIPModel.from_pretrained(frozen.name).save_pretrained(tmp_path)
    frozen.tokenizer.save(tmp_path)
    assert_same(load_clip(str(tmp_path)), frozen)
    weights = tmp_path / "model.safetensors"
    # Files of older versions hold the numbers of the positions, too.
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(load_file(weights) | positions, tmp_path / "pytorch_model.bin")
    weights.unlink()
    assert_same(load_clip(str(tmp_path)), frozen)


def test_a_folder_of_open_clip(frozen, tmp_path):
    frozen.tokenizer.save(tmp_path)
    open_clip(frozen, tmp_path / "open_clip_pytorch_model.bin")
    assert_same(load_clip(str(tmp_path)), frozen)


def test_transformers_reads_what_we_write(frozen):
    state = CLIPModel.from_pretrained(frozen.name).state_dict()
    assert state["text_model.embeddings.token_embedding.weight"].equal(frozen.state["token_embedding.weight"])


def test_the_tokenizer_of_the_fast_format(frozen, tmp_path):
    shutil.copy(f"{frozen.name}/model.safetensors", tmp_path)
    shutil.copy(f"{frozen.name}/config.json", tmp_path)
    tokenizer = CLIPTokenizer(vocab=frozen.tokenizer.vocab, merges=frozen.tokenizer.merges)
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert_same(load_clip(str(tmp_path)), frozen)


def test_openais_list_of_byte_pairs_makes_its_vocabulary(frozen, tmp_path):
    """A list as long as OpenAI's, and like it longer than its vocabulary."""
    letters = [token for token in vocabulary([]) if len(token) == 1]
    merges = list(itertools.islice(itertools.product(letters, letters), OPENAI_MERGES + 100))
    lines = ["a header", *(" ".join(merge) for merge in merges), ""]
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    state = frozen.state | {"token_embedding.weight": torch.randn(49_408, 64)}
    torch.save(state, tmp_path / "large.pt")
    found = load_clip(str(tmp_path / "large.pt"), "gelu").tokenizer
    merges = merges[:OPENAI_MERGES]
    assert found(tiny.TEXTS).equal(Tokenizer(vocabulary(merges), merges)(tiny.TEXTS))
    assert found.end == 49_407
