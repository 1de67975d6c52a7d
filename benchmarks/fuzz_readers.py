"""Every reader of files from elsewhere, with good files to begin with."""

import csv
import io
import json
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.startup import small_clip
from clip import data_check, missing_files, missing_import, runs
from clip.contact_sheet import draw_sheet
from clip.datasets import ArrowDataset
from clip.datasets.shards import read_facts
from clip.errors import UserError
from clip.experiments.reading import FOLDER, load_experiment
from clip.missing import MissingSettings
from clip.modules import build_model
from clip.modules.checkpoint import load_own
from clip.modules.clip_beside import find_activation, find_tokenizer
from clip.modules.clip_checks import whole_clip
from clip.modules.clip_files import read_tensors
from clip.modules.clip_layouts import ClipSizes
from clip.modules.clip_weights import load_clip
from clip.modules.objectives import TASKS
from clip.modules.published import our_names
from clip.prediction.predictor import Predictor
from clip.prediction.samples import read_sample
from clip.prediction.server import Server
from clip.prediction.sources import base_of, read_rows
from clip.transforms import ClipTransform
from vilt.utils import arrow, raw, write_food101, write_hatememes, write_manifest, write_mmimdb
from vilt.utils.raw import BadImage, RawDataError

REFUSALS = (UserError, RawDataError, BadImage)
SPLITS = ("train", "dev", "test")
TABLES = (".csv", ".jsonl", ".parquet")
FORMATS = {".png": "PNG", ".jpeg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".ppm": "PPM",
           ".tiff": "TIFF", ".webp": "WEBP", ".jp2": "JPEG2000", ".avif": "AVIF"}  # fmt: skip
CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
LABELS = [{"image": "a.png", "text": "one, \"two\"", "label": "cat", "split": "train"},
          {"image": "", "text": "b", "label": "dog", "split": "dev"},
          {"image": "a.png", "text": "", "label": "cat", "split": "test"}]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader under attack.

    Attributes:
        targets: files that are spoiled, one at a time.
        read: reads what lies in the folder; is told which file was spoiled.
    """

    targets: list[Path]
    read: Callable[[Path], Any]


def picture(suffix: str = ".png", size: tuple[int, int] = (12, 9)) -> bytes:
    """Encode a small image."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, FORMATS[suffix])
    return file.getvalue()


def put(path: Path, content: Any) -> Path:
    """Write bytes as they are, a list as lines of JSON, and all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        lines = content if isinstance(content, list) else [content]
        content = "\n".join(map(json.dumps, lines)).encode()
    path.write_bytes(content)
    return path


def mmimdb(folder: Path) -> Reader:
    """Raw MM-IMDb: split.json and a label file."""
    names = dict(zip(SPLITS, "abc", strict=True))
    for name in "abc":
        put(folder / f"raw/images/{name}.jpeg", picture(".jpeg"))
        put(folder / f"raw/labels/{name}.json", {"plot": ["p", "q"], "genres": ["Drama", "News"]})
    split = put(folder / "raw/split.json", {key: [name] for key, name in names.items()})
    return Reader([split, folder / "raw/labels/a.json"],
                  lambda _: write_mmimdb.make_arrow(folder / "raw", folder / "out"))  # fmt: skip


def food101(folder: Path) -> Reader:
    """Raw Food-101: its three json files and the titles in csv."""
    base, names = folder / "raw", [f"pie_{i}.jpg" for i in range(3)]
    for name, place in zip(names, ("train", "train", "test"), strict=True):
        put(base / f"images/{place}/pie/{name}", picture(".jpeg"))
    put(base / "split.json", {"train": names[:1], "val": names[1:2], "test": names[2:]})
    put(base / "class_idx.json", {"pie": 0, "soup": 1})
    put(base / "text.json", {name: "a pie" for name in names})
    titles = put(base / "texts/train_titles.csv", b"".join(b'%s,"a pie",pie\n' % name.encode()
                                                          for name in names))  # fmt: skip
    put(base / "texts/test_titles.csv", titles.read_bytes())
    texts = (base / "text.json").read_bytes()

    def read(spoiled: Path) -> None:
        (base / "text.json").write_bytes(texts) if spoiled != base / "text.json" else None
        if spoiled == titles:
            (base / "text.json").unlink()
        write_food101.make_arrow(base, folder / "out")

    return Reader([base / "split.json", base / "class_idx.json", base / "text.json", titles], read)


def memes(folder: Path) -> Reader:
    """Raw Hateful Memes: a jsonl file."""
    put(folder / "raw/img/1.png", picture())
    lines = [{"id": i, "img": "img/1.png", "label": i % 2, "text": "words"} for i in range(3)]
    files = [put(folder / f"raw/{split}.jsonl", lines) for split in SPLITS]
    return Reader(files[:1], lambda _: write_hatememes.make_arrow(folder / "raw", folder / "out"))


def manifest(folder: Path) -> Reader:
    """A manifest of each kind."""
    put(folder / "a.png", picture())
    files = [write_table(folder / f"m{suffix}", LABELS) for suffix in TABLES]
    return Reader(files, lambda path: write_manifest.make_arrow(path, folder / "out"))


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        put(path, rows)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def converted_images(folder: Path) -> Reader:
    """What the converter decodes."""
    files = [put(folder / f"a{suffix}", picture(suffix)) for suffix in FORMATS]
    return Reader(files, lambda path: raw.stored(path.read_bytes(), ClipTransform(16).pixels))


def predicted_images(folder: Path) -> Reader:
    """What a user asks about."""
    files = [put(folder / f"a{suffix}", picture(suffix)) for suffix in FORMATS]
    transform = ClipTransform(16)
    return Reader(files, lambda path: read_sample(path, "text", "row 1", transform))


def _arrows(folder: Path) -> list[Path]:
    images = [picture(), b"", picture(".jpeg")]
    columns = {"image": pa.array(images, pa.binary()), "text": [["a"], ["b", ""], [""]],
               "image_id": ["1", "2", "3"], "split": ["train"] * 3}  # fmt: skip
    out = []
    kinds = {"multiclass": [0, 1, 2], "multilabel": [[1, 0, 1], [0, 0, 0], [1, 1, 1]]}
    for kind, label in kinds.items():
        table = pa.table(columns | {"label": label})
        schema = arrow.with_classes(table.schema, ["x", "y", "z"], kind)
        out.append(folder / f"{kind}.arrow")
        with pa.ipc.new_file(out[-1], schema) as writer:
            writer.write_table(table.cast(schema))
    return out


def _dataset(path: Path) -> ArrowDataset:
    return ArrowDataset(path, text_column="text", num_classes=3, transform=ClipTransform(16),
                        tokenize=lambda texts: torch.zeros(len(list(texts)), 77, dtype=torch.long),
                        image_size=16, plots="all")  # fmt: skip


def arrow_files(folder: Path) -> Reader:
    """An arrow file, to train on; every sample of it."""

    def read(path: Path) -> None:
        read_facts(path)
        dataset = _dataset(path)
        dataset.row_ids()
        for index in range(len(dataset)):
            assert dataset[index]["image"].shape == (3, 16, 16)
            dataset.text(index)

    return Reader(_arrows(folder), read)


def checked_data(folder: Path) -> Reader:
    """An arrow file, in the check of a data set."""
    task = TASKS["food101"]
    return Reader(_arrows(folder), lambda path: data_check.survey(
        "train", _dataset(path), task, lambda texts: list(map(len, texts))))  # fmt: skip


def contact_sheets(folder: Path) -> Reader:
    """An arrow file, as a picture of a few samples."""
    return Reader(_arrows(folder), lambda path: draw_sheet(
        {"train": _dataset(path)}, ["x", "y", "z"], folder / "sheet.png"))  # fmt: skip


def downloaded_arrows(folder: Path) -> Reader:
    """An arrow file that comes from the hub."""
    return Reader(_arrows(folder), lambda path: arrow.check_arrow(path, ["image", "label"]))


def tables(folder: Path) -> Reader:
    """A missing table of ours."""
    settings = MissingSettings("mmimdb", "train", 50, "both", 0.5, 0.5, 0)
    missing_files.load_or_draw(folder, settings)
    (path,) = folder.glob("*.npz")
    return Reader([path], lambda path: missing_files.load(path, settings))


def foreign_tables(folder: Path) -> Reader:
    """A missing table of others, of each kind."""
    rows = [{"id": f"00{i}", "text_missing": i % 2, "image_missing": 0} for i in range(9)]
    files = [write_table(folder / f"t{suffix}", rows) for suffix in (".jsonl", ".csv")]
    files += [folder / "t.npz", folder / "t.pt"]
    np.savez_compressed(files[2], np.arange(9) % 3)
    torch.save(torch.arange(9) % 3, files[3])
    ids = [f"img/00{i}.png" for i in range(9)]
    return Reader(files, lambda path: missing_import.import_table(path, 9, "train", ids))


def weights(folder: Path) -> Reader:
    """A CLIP in each format."""
    clip = small_clip(folder / "clip")
    state = dict(load_clip(str(clip)).state)
    files = [clip / "model.safetensors", folder / "w.pt", folder / "script.pt"]
    torch.save(state, files[1])
    holder = torch.nn.Module()
    for name, tensor in state.items():
        holder.register_buffer(name.replace(".", "_"), tensor)
    torch.jit.script(holder).save(str(files[2]))

    def read(path: Path) -> None:
        tensors = read_tensors(path)
        if path != files[2]:  # its names have no dots
            whole_clip(tensors)

    return Reader(files, read)


def beside(folder: Path) -> Reader:
    """What stands beside a CLIP."""
    clip = small_clip(folder / "clip")
    sizes = ClipSizes.of(load_clip(str(clip)).state)
    model = {"vision_cfg": {"width": 64}, "text_cfg": {"width": 64}, "quick_gelu": True}
    other = put(clip / "open_clip_config.json", {"model_cfg": model})

    def read(_: Path) -> None:
        find_activation(clip, sizes, "00", None)
        find_tokenizer(clip, sizes)(["a film"])

    return Reader([clip / "config.json", other, clip / "vocab.json", clip / "merges.txt"], read)


def checkpoints(folder: Path) -> Reader:
    """A checkpoint of ours, and one of the released code."""
    state = load_clip(str(small_clip(folder / "clip"))).state
    model = build_model(state, num_classes=3, prompt_length=6, prompt_depth=2)
    released = model.state_dict()
    theirs = {}
    for ours, names in our_names(2):
        rows = released.pop(ours)
        rows = rows if len(names) > 1 else rows[None]
        theirs |= {f"model.{name}": row for name, row in zip(names, rows, strict=True)}
    for leaf in ("weight", "bias"):
        theirs[f"model.food101_classifier.{leaf}"] = released.pop(f"classifier.{leaf}")
    theirs |= {f"model.{k}": v for k, v in released.items() if not k.startswith("prompts.")}
    theirs["model.logit_scale"] = torch.tensor(1.0)
    files = [folder / "ours.pt", folder / "released.pt"]
    torch.save({"identity": {"task": "food101"}, "state_dict": model.own_state()}, files[0])
    torch.save({"state_dict": theirs, "callbacks": {Reader: 1}}, files[1])

    def read(path: Path) -> None:
        load_own(model, runs.read_checkpoint(path, 0)["state_dict"], path)

    return Reader(files, read)


def sources(folder: Path) -> Reader:
    """A table of things to predict, of each kind."""
    put(folder / "a.png", picture())
    rows = [{key: row[key] for key in ("image", "text")} for row in LABELS]
    files = [write_table(folder / f"t{suffix}", rows) for suffix in TABLES]
    transform = ClipTransform(16)

    def read(path: Path) -> None:
        for row in read_rows(path):
            is_path = isinstance(row.image, str) and row.image
            image = base_of(path) / row.image if is_path else row.image
            try:
                read_sample(image, row.text, f"row {row.number}", transform)
            except UserError:
                continue

    return Reader(files, read)


class _Loud(Server):
    """Remembers what the server would print as a traceback."""

    fault: BaseException | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        self.fault = None if isinstance(error, ConnectionError) else error


def requests(folder: Path) -> Reader:
    """A request to the page."""
    frozen = load_clip(str(small_clip(folder / "clip")))
    model = build_model(frozen.state, num_classes=3, prompt_length=6, prompt_depth=2)
    predictor = Predictor(model, frozen.tokenizer, ClipTransform(frozen.sizes.image_size),
                          TASKS["food101"], ["x", "y", "z"], CPU, 4)  # fmt: skip
    server = _Loud(("127.0.0.1", 0), predictor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    body = json.dumps({"image": None, "text": "a film"}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    files = [put(folder / "post.http", head.encode() + body),
             put(folder / "get.http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
             put(folder / "body.json", {"image": None, "text": "a film"})]  # fmt: skip

    def read(path: Path) -> None:
        data = path.read_bytes()
        if path.suffix == ".json":
            length = str(len(data)).encode()
            data = head.encode().replace(str(len(body)).encode(), length) + data
        server.fault = None
        if said := _asked(server.server_address, data):
            status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/") else 200
            if 400 <= status < 500 or status in (501, 505):
                raise UserError(str(status))
        if server.fault:
            raise server.fault

    return Reader(files, read)


def _asked(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while block := connection.recv(65_536):
                said += block
        except OSError:  # it was refused before all was sent
            return b""
    return said


def experiments(folder: Path) -> Reader:
    """An experiment in YAML."""
    files = [Path(shutil.copy(path, folder)) for path in sorted(FOLDER.glob("*.yaml"))[:4]]
    return Reader(files, load_experiment)


READERS: dict[str, Callable[[Path], Reader]] = {
    "MM-IMDb, raw": mmimdb,
    "Food-101, raw": food101,
    "Hateful Memes, raw": memes,
    "manifest": manifest,
    "image, converted": converted_images,
    "image, predicted": predicted_images,
    "arrow, trained on": arrow_files,
    "arrow, checked": checked_data,
    "arrow, as a picture": contact_sheets,
    "arrow, downloaded": downloaded_arrows,
    "missing table": tables,
    "missing table of others": foreign_tables,
    "weights": weights,
    "beside the weights": beside,
    "checkpoint": checkpoints,
    "rows to predict": sources,
    "request to the page": requests,
    "experiment": experiments,
}
