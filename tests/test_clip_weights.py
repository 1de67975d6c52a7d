"""Weight files that are not one whole CLIP are refused in one line; nothing in them ever runs."""

import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip.errors import UserError
from clip.modules.clip_beside import OPENAI_SHA256, find_activation
from clip.modules.clip_layouts import ClipSizes
from clip.modules.clip_weights import load_clip
from clip.modules.tokenizer import train_tokenizer
from clip.modules.vision_transformer_prompts import TextTransformer
from tests import tiny

BLOCK = "transformer.resblocks.1."


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "x")


@pytest.fixture
def folder(original, tmp_path):
    """A copy of a good folder, to be spoiled."""
    return shutil.copytree(original, tmp_path / "clip")


@pytest.fixture
def state(original):
    return dict(load_clip(str(original)).state)


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refusal(vit, activation=None):
    """The message, which must be one line that names the file or folder."""
    with pytest.raises(UserError) as caught:
        load_clip(str(vit), activation)
    message = str(caught.value)
    assert "\n" not in message
    assert str(vit) in message
    return message


# Tensors


def drop_one(state):
    del state[BLOCK + "mlp.c_fc.bias"]


def drop_a_block(state):
    for name in [name for name in state if name.startswith(BLOCK)]:
        del state[name]


def drop_text(state):
    for name in [name for name in state if not name.startswith("visual.")]:
        del state[name]


def add_one(state):
    state["visual.pooler.weight"] = torch.zeros(1)


def misshape(state):
    state["visual.proj"] = torch.zeros(128, 31)


def spoil(state):
    state["ln_final.weight"] = state["ln_final.weight"].index_fill(0, torch.tensor(3), torch.nan)


def overflow(state):
    state["visual.proj"] = state["visual.proj"].index_fill(0, torch.tensor(3), -torch.inf)


def none_left(state):
    state["visual.proj"] = torch.zeros(0, 32)


def quantise(state):
    state["visual.proj"] = state["visual.proj"].char()


def empty(state):
    state["visual.proj"] = state["visual.proj"].to("meta")


def odd_grid(state):
    state["visual.positional_embedding"] = torch.zeros(6, 128)


def narrow(state):
    text = TextTransformer(width=96, layers=1, context=77, vocabulary=560, embed_dim=32,
                           activation="gelu")  # fmt: skip
    drop_text(state)
    state.update(text.state_dict(), logit_scale=torch.zeros(()))


def residual_network(state):
    for name in [name for name in state if name.startswith("visual.")]:
        del state[name]
    state["visual.conv1.weight"] = torch.zeros(32, 3, 3, 3)
    state["visual.attnpool.positional_embedding"] = torch.zeros(50, 2048)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_one, [f"1 missing ({BLOCK}mlp.c_fc.bias)"]),
        (drop_a_block, ["12 missing", f"{BLOCK}attn.in_proj_weight", ", …)"]),
        (drop_text, ["no tensor 'token_embedding.weight'", "text tower"]),
        (add_one, ["1 unexpected (visual.pooler.weight)"]),
        (misshape, ["1 misshaped (visual.proj is (128, 31), not (128, 32))"]),
        (spoil, ["1 not finite (ln_final.weight)"]),
        (overflow, ["1 not finite (visual.proj)"]),
        (none_left, ["1 misshaped (visual.proj is (0, 32), not (128, 32))"]),
        (quantise, ["1 not of floating-point numbers (visual.proj)"]),
        (empty, ["1 not of floating-point numbers (visual.proj)"]),
        (odd_grid, ["visual.positional_embedding is (6, 128), not (5, 128)"]),
        (narrow, ["text tower is 96 wide", "64"]),
        (residual_network, ["no tensor 'visual.positional_embedding'", "vision transformer"]),
        (lambda state: state.update({"token_embedding.weight": torch.zeros(5, 0)}), ["empty"]),
        (
            lambda state: state.update({"visual.conv1.weight": torch.zeros(5)}),
            ["not those of a CLIP"],
        ),
        (lambda state: state.clear(), ["no tensor 'visual.conv1.weight'"]),
        (lambda state: state.update(x=0), ["no state dict"]),
    ],
)
def test_wrong_tensors_are_listed(folder, state, change, words):
    change(state)
    torch.save(state, folder / "wrong.pt")
    message = refusal(folder / "wrong.pt", "quick_gelu")
    assert all(word in message for word in words), message


def test_tensors_are_listed_by_their_names_in_the_file(folder):
    weights = folder / "model.safetensors"
    state = load_file(weights)
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    state |= {"pooler.weight": torch.zeros(1), "visual_projection.weight": torch.zeros(1)}
    save_file(state, weights)
    message = refusal(folder)
    assert "1 missing (text_model.encoder.layers.1.self_attn.k_proj.bias)" in message
    assert "1 unexpected (pooler.weight)" in message
    assert "1 misshaped (visual_projection.weight is (1,), not (32, 128))" in message


# Files


def truncated(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def pickled_code(path, state):
    torch.save(state | {"logit_scale": Payload(path.parent / "ran")}, path)


def code_in_an_archive(path, state):
    """A TorchScript archive whose list of attributes runs something when unpickled."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            spoilt = name.endswith("/data.pkl")
            content = pickle.dumps(Payload(path.parent / "ran"), 2) if spoilt else data
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.pt", truncated, "cannot be read"),
        ("a.safetensors", truncated, "cannot be read"),
        ("a.pt", lambda path, state: path.write_bytes(b""), "cannot be read"),
        (
            "a.bin",
            lambda path, state: path.write_text("<html>Not found</html>"),
            "not a file of tensors",
        ),
        ("a.pt", lambda path, state: torch.save(list(state), path), "no state dict"),
        ("a.pt", pickled_code, "tensors alone (it asks for posix.mkdir)"),
        (
            "a.bin",
            lambda path, state: path.write_bytes(pickle.dumps(Payload("ran"), 2)),
            "posix.mkdir",
        ),
        ("a.pt", code_in_an_archive, "tensors alone (it asks for posix.mkdir)"),
    ],
)
def test_files_that_hold_no_tensors(folder, state, name, write, words):
    write(folder / name, state)
    assert words in refusal(folder / name)
    assert not (folder / "ran").exists()
    assert not os.path.exists("ran")


def test_the_payload_does_run_where_nothing_guards(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


# What stands beside them


def config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        tower, _, key = key.partition("__")
        content[f"{tower}_config"][key] = value
    (folder / "config.json").write_text(json.dumps(content))


def overruled(folder):
    """A second section, of old versions, that overrules the first."""
    content = json.loads((folder / "config.json").read_text())
    content |= {"vision_config_dict": None, "text_config_dict": {"hidden_act": "gelu"}}
    (folder / "config.json").write_text(json.dumps(content))


def foreign_tokenizer(folder):
    train_tokenizer(["other words and others"] * 3, 530).save(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: config(folder, vision__hidden_act="relu"), "['quick_gelu', 'relu']"),
        (overruled, "['gelu', 'quick_gelu']"),
        (lambda folder: config(folder, vision__num_attention_heads=4), "is 4, but this CLIP needs"),
        (lambda folder: config(folder, text__num_hidden_layers=12), "is 12, but this CLIP needs 4"),
        (lambda folder: config(folder, text__layer_norm_eps=1e-6), "layer_norm_eps is 1e-06"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "give activation=quick_gelu"),
        (lambda folder: (folder / "config.json").unlink(), "give activation=quick_gelu"),
        (lambda folder: (folder / "vocab.json").unlink(), "put the one of this CLIP there"),
        (lambda folder: (folder / "merges.txt").unlink(), "vocab.json and merges.txt"),
        (lambda folder: (folder / "vocab.json").write_text("[]"), "get them again"),
        (foreign_tokenizer, "tokenizer of 526 tokens"),
        (lambda folder: (folder / "model.safetensors").unlink(), "none of model.safetensors, "),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, change, words):
    change(folder)
    assert words in refusal(folder)


def test_whoever_says_the_activation_must_agree(folder, state):
    assert load_clip(str(folder), "quick_gelu").activation == "quick_gelu"
    message = refusal(folder, "gelu")
    assert "config.json says quick_gelu, activation= says gelu" in message
    model = {"embed_dim": 32, "vision_cfg": {"width": 128}, "text_cfg": {"width": 64, "heads": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    assert "open_clip_config.json says gelu" in refusal(folder)
    (folder / "config.json").unlink()
    assert load_clip(str(folder)).activation == "gelu"


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("vision_cfg", {"timm_model_name": "vit_so400m"}, "timm_model_name set"),
        ("vision_cfg", {"head_width": 80}, "head_width is 80, but this CLIP needs 64"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask set"),
    ],
)
def test_variants_of_open_clip_are_refused(folder, section, values, words):
    model = {"quick_gelu": True, "vision_cfg": {}, "text_cfg": {}} | {section: values}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    assert words in refusal(folder)


def test_openais_archives_say_their_activation_by_checksum(tmp_path, state):
    sizes = ClipSizes.of(state)
    assert len(OPENAI_SHA256) == 4
    for checksum in OPENAI_SHA256:
        assert find_activation(tmp_path, sizes, checksum, None) == "quick_gelu"
        with pytest.raises(UserError, match="says quick_gelu, activation= says gelu"):
            find_activation(tmp_path, sizes, checksum, "gelu")
    with pytest.raises(UserError, match="give activation="):
        find_activation(tmp_path, sizes, "0" * 64, None)


def test_a_tower_wider_than_the_published_ones_needs_a_configuration(tmp_path, state):
    width = 1280  # ViT-H/14 has 16 heads of 80 there
    state["visual.conv1.weight"] = torch.zeros(width, 3, 8, 8)
    with pytest.raises(UserError, match="1280 channels may have any number of heads"):
        find_activation(tmp_path, ClipSizes.of(state), "0" * 64, "gelu")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    assert "ViT-B/16" in refusal("ViT-X-99")
    assert "neither a file" in refusal(tmp_path / "absent.pt")
