"""Weight files that are not one complete CLIP raise one clear line; nothing in them ever runs."""

import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip.modules.vision_transformer_prompts import TextTransformer
from tests import tiny

BLOCK = "transformer.resblocks.1."


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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
    text = TextTransformer(replace(tiny.SIZES, text_width=96), "gelu")
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
        (drop_one, [f"{BLOCK}mlp.c_fc.bias is missing"]),
        (drop_a_block, [f"{BLOCK}attn.in_proj_weight is missing", "and 7 more"]),
        (drop_text, ["token_embedding.weight is missing"]),
        (add_one, ["visual.pooler.weight is unexpected"]),
        (misshape, ["visual.proj", "(128, 31)", "(128, 32)"]),
        (spoil, ["ln_final.weight", "finite"]),
        (overflow, ["visual.proj", "finite"]),
        (none_left, ["visual.proj", "(0, 32)", "(128, 32)"]),
        (quantise, ["visual.proj", "floating-point"]),
        (empty, ["visual.proj"]),
        (odd_grid, ["visual.positional_embedding", "(6, 128)", "(5, 128)"]),
        (narrow, ["text tower", "96", "64"]),
        (residual_network, ["visual.positional_embedding is missing"]),
        (lambda state: state.update({"token_embedding.weight": torch.zeros(5, 0)}), ["(5, 0)"]),
        (lambda state: state.update({"visual.conv1.weight": torch.zeros(5)}), ["visual.conv1.weight", "(5,)"]),
        (lambda state: state.clear(), ["visual.conv1.weight is missing"]),
        (lambda state: state.update(x=0), ["state dict"]),
    ],
)
def test_wrong_tensors_are_listed(folder, state, change, words):
    change(state)
    torch.save(state, folder / "wrong.pt")
    message = tiny.refusal(folder / "wrong.pt", "quick_gelu")
    assert all(word in message for word in words), message


def test_tensors_are_listed_by_their_names_in_the_file(folder):
    weights = folder / "model.safetensors"
    state = load_file(weights)
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    state |= {"pooler.weight": torch.zeros(1), "visual_projection.weight": torch.zeros(31, 128)}
    save_file(state, weights)
    message = tiny.refusal(folder)
    assert "text_model.encoder.layers.1.self_attn.k_proj.bias is missing" in message
    assert "pooler.weight is unexpected" in message
    assert "visual_projection.weight" in message


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
            "tensors only",
        ),
        ("a.pt", lambda path, state: torch.save(list(state), path), "state dict"),
        ("a.pt", pickled_code, "posix.mkdir"),
        (
            "a.bin",
            lambda path, state: path.write_bytes(pickle.dumps(Payload("ran"), 2)),
            "posix.mkdir",
        ),
        ("a.pt", code_in_an_archive, "tensors only"),
    ],
)
def test_files_that_hold_no_tensors(folder, state, name, write, words):
    write(folder / name, state)
    assert words in tiny.refusal(folder / name)
    assert not (folder / "ran").exists()
    assert not os.path.exists("ran")


def test_the_payload_does_run_where_nothing_guards(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    assert "ViT-B/16" in tiny.refusal("ViT-X-99")
    assert "ViT-B/16" in tiny.refusal(tmp_path / "absent.pt")
