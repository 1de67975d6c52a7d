"""Files that are wrong in one way each, under one folder: what the rows of messages.py name."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image

from clip.datasets import DATASETS
from clip.utils.images import MAX_PIXELS
from tests import experiment_files, raw_data, tiny
from tests.own_data import write_manifest
from tests.raw_data import write_json, write_lines

CUT = 1000  # bytes that are left of a file which broke off


def write(folder: Path, arrow: Path, clip: Path, checkpoint: Path) -> Path:
    """Write all of them, from good arrow files, a good CLIP and a good checkpoint."""
    folder.mkdir()
    _checkpoints(folder, checkpoint)
    _clips(folder, clip)
    _arrow(folder, arrow)
    _tables(folder)
    _raw(folder / "raw")
    _manifests(folder)
    inputs(folder)
    experiment_files.write(folder)
    (folder / "list.yaml").write_text("- a list\n")
    (folder / "open.yaml").write_text("title: {\n")
    (folder / "key.yaml").write_text((folder / "small.yaml").read_text().replace("max_epoch", "max_epochs"))
    return folder


def cut(path: Path, target: Path) -> None:
    """Leave the start of a file."""
    target.write_bytes(path.read_bytes()[:CUT])


def png(path: Path, side: int) -> None:
    """Write a PNG whose header promises side x side pixels, and which holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b""))


def _checkpoints(folder: Path, checkpoint: Path) -> None:
    (folder / "notes.pt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, folder / "other.pt")
    cut(checkpoint, folder / "cut.pt")
    content = torch.load(checkpoint, weights_only=True)
    config = content["model_config"]
    changes = {"fading": {"prompt_type": "fading", "fading.fade": 0.5}, "vit": {"vit": 3},
               "plugins": {"plugins": [["evil"]]}, "backbone": {"backbone": ["clip"]}}  # fmt: skip
    for name, change in changes.items():
        torch.save(content | {"model_config": config | change}, folder / f"{name}.pt")
    (folder / "notes.arrow").write_text("no predictions")


def _clips(folder: Path, clip: Path) -> None:
    tiny.write_clip(folder / "clip", seed=9)
    shutil.copytree(clip, folder / "cut_clip")
    for path in (folder / "cut_clip").glob("*.safetensors"):
        cut(path, path)
    (folder / "notes.safetensors").write_text("no tensors")
    torch.save({"weights": torch.zeros(2)}, folder / "tensors.pt")


def _arrow(folder: Path, arrow: Path) -> None:
    (folder / "empty").mkdir()
    for name in ("cut", "columns", "no_dev", "classes"):
        shutil.copytree(arrow, folder / name, ignore=shutil.ignore_patterns("raw", "food", "memes"))
    cut(arrow / "mmimdb_train.arrow", folder / "cut/mmimdb_train.arrow")
    (folder / "no_dev/mmimdb_dev.arrow").unlink()
    _rewrite(folder / "columns/mmimdb_train.arrow", lambda table: table.drop_columns(["plots"]))
    _rewrite(folder / "classes/mmimdb_train.arrow", lambda table: table.set_column(
        2, "label", pa.array([[1, 0]] * len(table))))  # fmt: skip
    _rewrite(folder / "classes/food101_train.arrow", lambda table: table.set_column(
        2, "label", pa.array([101] * len(table))))  # fmt: skip
    (folder / "unnamed").mkdir()
    for split in ("train", "val", "test"):
        (path,) = DATASETS["hatememes"].find(arrow, split)
        shutil.copy(path, folder / f"unnamed/{split}.arrow")
        _rewrite(folder / f"unnamed/{split}.arrow", lambda t: t.replace_schema_metadata(None))


def _rewrite(path: Path, change: object) -> None:
    table = change(pa.ipc.open_file(path.read_bytes()).read_all())
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _tables(folder: Path) -> None:
    (folder / "short.csv").write_text("missing_type\n0\n")
    (folder / "three.csv").write_text("missing_type\n" + "3\n" * 24)
    (folder / "open.jsonl").write_text('{"id": ')
    (folder / "table.txt").write_text("0\n")


def _raw(raw: Path) -> None:
    """Copies of MM-IMDb's layout, each with one fault; and the other two data sets."""

    def films(name: str) -> Path:
        return raw_data.mmimdb(raw / name)

    (films("cut_label") / "labels/0000004.json").write_text('{"plot": ')
    (films("cut_split") / "split.json").write_text("[")
    write_json(films("no_dev") / "split.json", {"train": [], "test": []})
    write_json(films("none") / "split.json", {"train": ["0000000"], "dev": [], "test": []})
    (films("no_images") / "images").rename(raw / "no_images/posters")
    for path in films("bad_images").glob("images/000000[45].jpeg"):
        path.write_bytes(b"")
    write_json(raw_data.food101(raw / "food") / "class_idx.json", {"apple_pie": 0})
    memes = raw_data.hateful_memes(raw / "memes")
    write_lines(memes / "dev.jsonl", [{"img": "img/00000.png", "text": "", "label": 2}])
    memes = raw_data.hateful_memes(raw / "unlabelled")
    write_lines(memes / "test.jsonl", [{"img": "img/00006.png", "text": ""}])
    films("good")
    memes = raw_data.hateful_memes(raw / "seen")
    shutil.move(memes / "test.jsonl", memes / "test_seen.jsonl")
    shutil.copy(raw / "unlabelled/test.jsonl", memes)
    (raw / "empty").mkdir()


def _manifests(folder: Path) -> None:
    row = {"image": "", "text": "a", "split": "train"}
    write_manifest(folder / "split.csv", [row | {"label": "a"}, row | {"label": "b"}])
    write_manifest(folder / "label.jsonl", [row | {"label": True}])


def inputs(folder: Path) -> None:
    """What predict cannot read."""
    Image.new("RGB", (30, 20), "red").save(folder / "good.png")
    data = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "notes.png").write_text("no image")
    png(folder / "warned.png", int(MAX_PIXELS**0.5) + 2)  # Pillow only warns of this one
    png(folder / "bomb.png", int((3 * MAX_PIXELS) ** 0.5))
    (folder / "there.csv").write_text("")
    (folder / "bare.csv").write_text("image,text\n")
    (folder / "other.csv").write_text("picture,words\na,b\n")
    (folder / "latin.csv").write_bytes("text\nÄpfel\n".encode("latin-1"))
    (folder / "open.csv").write_text('text\na\n"an open quote\nb\nc\n')
    (folder / "broken.parquet").write_text("PAR1")
    (folder / "films.txt").write_text("text\na\n")
    (folder / "lines.jsonl").write_text(json.dumps({"text": "a"}) + "\n[]\n")
