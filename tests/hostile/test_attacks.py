"""Known attacks by files: code in pickles, decompression bombs, false sizes, paths out of the data."""

import json
import os
import pickle
import shutil
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clip.utils.errors import UserError
from tests import raw_data
from tests.hostile.damage import rewrite_zip
from tests.hostile.readers import READERS, read, write_files

MARKER = "code-has-run"


@pytest.fixture(scope="module")
def valid(clip_folder, tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("valid"), clip_folder)


@pytest.fixture(autouse=True)
def folder(valid, tmp_path, monkeypatch):
    shutil.copytree(valid, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


class Payload:  # makes a folder when it is unpickled
    def __reduce__(self):
        return os.mkdir, (MARKER,)


def malicious(file):
    """Return the content of a file that runs code in a careless reader."""
    code, out = pickle.dumps(Payload(), 2), BytesIO()
    if file.suffix == ".pt":
        return rewrite_zip(file.read_bytes(), lambda name, content: code if name.endswith("data.pkl") else content)
    if file.suffix == ".npz":
        np.savez(out, np.array([Payload()], dtype=object))
        return out.getvalue()
    if file.suffix == ".json":  # as jsonpickle reads it, which Sacred uses
        content = [{"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [MARKER]}]}]
        return json.dumps({"exp_name": f"\u00a0{content}"}).encode()  # Sacred strips the space and parses the rest
    return code


ATTACKED = [("checkpoints", "trained.pt"), ("CLIP weights", "clip/weights.pt"), ("CLIP weights", "clip/weights.bin")]
ATTACKED += [("missing tables", "missing.pt"), ("missing tables", "missing.npz")]
ATTACKED += [("settings files", "settings.json"), ("settings files", "settings.pickle")]


@pytest.mark.parametrize(("reader", "name"), ATTACKED)
def test_no_code_runs(reader, name):
    Path(name).write_bytes(malicious(Path(name)))
    with pytest.raises(UserError):
        read(READERS[reader][1], name)
    assert not Path(MARKER).exists()


def test_decompression_bomb_is_not_decoded(capsys):
    Image.new("L", (10_000, 9_000)).save("image.png")  # over Pillow's limit
    with pytest.raises(UserError, match=r"image\.png"):
        read(READERS["predicted images"][1], "image.png")
    read(READERS["converted images"][1], "image.png")
    assert "image.png" in capsys.readouterr().out  # skipped and reported


@pytest.mark.parametrize("length", [1, 2**20, 2**60])
def test_false_header_of_safetensors_is_rejected(length):
    file = Path("clip/model.safetensors")
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        read(READERS["CLIP weights"][1], str(file))


def test_only_regular_files_below_the_data_folder_are_read(capsys):
    secret = Path("secret.png").absolute()
    raw_data.draw(secret, 9)
    os.symlink(secret, "memes/img/link.png")
    os.mkfifo("memes/img/pipe.png")
    names = ["../secret.png", "img/link.png", str(secret), "img/pipe.png", "img/\x1b[2J.png", "img/00000.png"]
    raw_data.write_lines(Path("memes/train.jsonl"), [{"img": name, "text": "a", "label": 0} for name in names])
    read(READERS["raw Hateful Memes"][1], "memes")
    with pa.memory_map("out/hatememes_train.arrow") as file:
        assert pa.ipc.open_file(file).read_all().num_rows == 1
    assert "\x1b" not in capsys.readouterr().out
