"""The known attacks by files: none runs code, fills the memory, or leads out of the data."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from benchmarks.hostile.attacks import Payload, archived, arrow_bytes, parquet_bytes
from clip.datasets.shards import open_table
from clip.engine import trainer as runs
from clip.experiments.spec import load_experiment
from clip.inference.readers import read_rows
from clip.inference.samples import read_sample
from clip.missing import importers as missing_import
from clip.modules.backbones.clip_convert import convert_clip
from clip.modules.backbones.tensor_files import read_tensors
from clip.transforms import ClipTransform
from clip.utils.errors import UserError
from clip.utils.images import square
from tests import raw_data
from tests.own_data import write_manifest
from tests.vilt.test_manifest import three
from vilt.utils import raw, write_hatememes, write_mmimdb
from vilt.utils import write_manifest as writer
from vilt.utils.manifest import read_entries
from vilt.utils.raw import RawDataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*decompression bomb", "ignore:.*torch.jit.script", "ignore:.*Truncated File Read"
)


def saved(path, content):
    torch.save(content, path)
    return path


LOADERS = {
    "checkpoint": lambda path: runs.read_checkpoint(path, 0),
    "weights": read_tensors,
    "missing table": lambda path: missing_import.import_mask(path, 3, "train"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_no_pickle_runs_and_no_archive_unfolds(loader, tmp_path):
    marker, path = tmp_path / "this ran", tmp_path / "t.pt"
    good = saved(path, torch.arange(3)).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    payload = pickle.dumps(Payload(marker), 2)
    pickle.loads(payload)  # it would run
    marker.rmdir()
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    data = next(name for name in entries if name.endswith("/0"))
    bomb = archived(entries | {data: bytes(2**24)})
    assert len(bomb) < 2**18
    for content in (payload, bomb, archived(entries | {pickled: payload})):
        path.write_bytes(content)
        with pytest.raises(UserError):
            LOADERS[loader](path)
        assert not marker.exists()


@pytest.mark.parametrize("loader", LOADERS)
def test_tensors_that_claim_more_than_the_file_holds_are_refused(loader, tmp_path):
    wide = torch.zeros(1).expand(10**6, 10**6)
    state = {"model_config": {}, "state_dict": {"classifier.bias": wide}}
    content = {"checkpoint": state, "weights": {"a": wide}}.get(loader, wide)
    with pytest.raises(UserError, match="t.pt"):
        LOADERS[loader](saved(tmp_path / "t.pt", content))


def test_a_mask_of_objects_is_not_loaded(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, np.array([Payload(tmp_path / "this ran")], dtype=object))
    with pytest.raises(UserError, match="t.npz"):
        missing_import.import_mask(path, 3, "train")
    assert not (tmp_path / "this ran").exists()


@pytest.mark.parametrize("change", [(0, 2**60), (0, 1), (8, 10**9)])
def test_a_lying_safetensors_header_is_refused(change, clip_folder, tmp_path):
    data = bytearray((clip_folder / "model.safetensors").read_bytes())
    place, value = change
    if place:  # an offset of the first tensor, as many digits long
        (length,) = struct.unpack("<Q", data[:8])
        head = bytes(data[8 : 8 + length]).replace(b'"data_offsets":[0', b'"data_offsets":[9', 1)
        data[8 : 8 + length] = head
    else:
        data[:8] = struct.pack("<Q", value)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(tmp_path / "model.safetensors")


def test_a_name_with_a_billion_blocks_is_not_built(state):
    state["visual.transformer.resblocks.99999999.a"] = torch.zeros(1)
    with pytest.raises(UserError, match="names 100000000 blocks"):
        convert_clip(state)


def test_lying_arrow_buffers_are_refused(tmp_path):
    path = tmp_path / "t.arrow"
    columns = {"image": pa.array([b"abc", b"de"], pa.binary())}
    data = arrow_bytes(columns)
    path.write_bytes(data)
    assert open_table(path)["image"].to_pylist() == [b"abc", b"de"]
    offsets = struct.pack("<3i", 0, 3, 5)
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, struct.pack("<3i", 0, 3, 2**30)))
    with pytest.raises(UserError, match="t.arrow"):
        open_table(path)


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_an_image_over_the_limit_is_refused_undecoded_by_all(mode, tmp_path):
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", 10_000, 9_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(raw.BadImage, match="over 89478485 pixels"):
        raw.stored(bytes(data), None)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(Image.DecompressionBombError):
        square(image, 8)


def test_a_jpeg_of_endless_scans_is_refused_undecoded(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    for times, refused in ((50, False), (200, True)):
        path = tmp_path / "a.jpeg"
        path.write_bytes(data[:-2] + scan * times + data[-2:])
        report = raw.with_image(tmp_path, "a.jpeg", {})
        assert (report == raw.Skipped("image has too many scans", "a.jpeg")) == refused
        if not refused:
            assert read_sample(path, None, "", ClipTransform(8)).image is not None
            continue
        with pytest.raises(UserError, match="TooManyScans"):
            read_sample(path, None, "", ClipTransform(8))


def test_a_parquet_file_that_unfolds_is_refused_by_both_its_readers(tmp_path):
    row = {"image": [""], "text": ["a" * 2**26 + "b"], "label": ["a"]}
    (tmp_path / "t.parquet").write_bytes(parquet_bytes(row, compression="zstd"))
    for read, error in ((read_rows, UserError), (read_entries, RawDataError)):
        with pytest.raises(error, match=r"unpacks \d,\d+ bytes to 67,\d+,\d+"):
            next(read(tmp_path / "t.parquet"))


def linked(folder: Path, secret: Path) -> None:
    """Puts a link to a secret outside into the data."""
    raw_data.draw(secret, 9)
    os.symlink(secret, folder / "link.png")


def test_no_path_and_no_link_leads_out_of_the_data(tmp_path):
    root = raw_data.hateful_memes(tmp_path / "memes")
    linked(root / "img", tmp_path / "secret.png")
    names = ["../../secret.png", "img/link.png", "/etc/passwd", "img/00000.png"]
    lines = [{"img": name, "text": "a", "label": 0} for name in names]
    raw_data.write_lines(root / "train.jsonl", lines)
    report = write_hatememes.make_arrow(root, tmp_path / "out")
    assert "path leads out of the data folder: 3 (../../secret.png, img/link.png, /etc" in report
    films = raw_data.mmimdb(tmp_path / "films")
    os.replace(films / "labels/0000000.json", tmp_path / "0.json")
    os.symlink(tmp_path / "0.json", films / "labels/0000000.json")
    assert "label file is absent: 1" in write_mmimdb.make_arrow(films, tmp_path / "out")
    mine = tmp_path / "mine"
    raw_data.draw(mine / "a:b.jpg", 3)
    linked(mine, tmp_path / "secret.png")
    rows = [row | {"image": "a:b.jpg"} for row in three()] + three(image="link.png")
    report = writer.make_arrow(write_manifest(mine / "m.jsonl", rows), tmp_path / "out")
    assert [line.split()[1] for line in report.splitlines()[1:4]] == ["1", "1", "1"]
    # The folder itself may be a link: whoever converts has made it.
    os.symlink(mine, tmp_path / "elsewhere")
    assert "1" in writer.make_arrow(tmp_path / "elsewhere/m.jsonl", tmp_path / "out").split()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    found = raw.with_image(tmp_path, "pipe.png", {})
    assert found == raw.Skipped("image is absent", "pipe.png")


def test_names_in_a_report_cannot_write_to_the_terminal():
    tally = raw.Tally()
    tally.add(raw.Skipped("image is absent", "a\n\x1b[2Jb" + "é" * 500))
    assert str(tally).startswith("image is absent: 1 (a\\n\\x1b[2Jbééé")
    assert len(str(tally)) < 200
    assert str(UserError("a\nb")) == "a\\nb"


@pytest.mark.parametrize("text", ["a: &a [b, b]\nc: [*a, *a]", "a: 2024-99-99", "[" * 9000,
                                  "a: 1\n" * 50_000])  # fmt: skip
def test_yaml_that_unfolds_or_never_ends_is_refused(text, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(UserError, match=r"e.yaml (is no YAML|has over)"):
        load_experiment(tmp_path / "e.yaml")
