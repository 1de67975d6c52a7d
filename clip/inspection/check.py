"""What a data set holds, before anybody trains on it: one pass over its arrow files."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip.cli import build as assembly
from clip.datasets import ArrowDataset
from clip.inspection.contact_sheet import draw_sheet
from clip.missing import MISSING_IMAGE, MISSING_TEXT, SPLITS
from clip.missing.masks import count_cases
from clip.modules.backbones.registry import BACKBONES
from clip.modules.objectives import Task
from clip.utils.errors import UserError
from clip.utils.images import FORMATS

TEXTS_AT_ONCE = 512
DIGEST = 8  # bytes; two of a million different texts agree by chance once in 37 million data sets
MANY_CLASSES = 40
ENDS = 10  # the most and the least frequent classes, where there are many
Count = Callable[[Sequence[str]], Sequence[int]]  # texts -> their lengths


class Measure(NamedTuple):
    """How the length of a text is measured.

    Attributes:
        unit: for the table's head.
        count: texts -> their lengths.
        read: tokens that the backbone reads, start and end among them.
        note: a remark for the table's head.
    """

    unit: str
    count: Count
    read: int
    note: str = ""


@dataclass(frozen=True)
class Survey:
    """What one split holds; a few numbers a row, never an image.

    Attributes:
        split: its name.
        states: (rows,), what each row really lacks.
        classes: (C,), rows of each class.
        unlabelled: rows of no class, where a row may have several.
        lengths: of the texts that are there, in tokens or words.
        sizes: (images, 2), width and height.
        broken: rows whose image is none.
        images: a number for each image, equal for equal bytes.
        texts: the same for each text.
    """

    split: str
    states: np.ndarray
    classes: np.ndarray
    unlabelled: int
    lengths: np.ndarray
    sizes: np.ndarray
    broken: list[int]
    images: np.ndarray
    texts: np.ndarray


def check(config: dict[str, Any], given: set[str]) -> Path:
    """Print what the splits hold, and draw a few samples of each; returns the picture's path."""
    task, label_metadata = assembly.task_of(config)
    data = assembly.data_from_config(config, 1, tokenize=list)
    datasets = {split: data.dataset(split) for split in SPLITS}
    measure = _measure(config)
    surveys = [survey(split, dataset, task, measure.count) for split, dataset in datasets.items()]
    names = label_metadata.get("class_names") or [f"class {i}" for i in range(task.num_classes)]
    if len(names) > task.num_classes:
        raise UserError(
            f"data_root={config['data_root']} names {len(names)} classes, but "
            f"task={config['task']} has {task.num_classes}; is this another data set?"
        )
    lines = [*_rows(surveys), "", *_classes(surveys, names), "", *_lengths(surveys, measure),
             "", *_images(surveys), "", *_duplicates(surveys)]  # fmt: skip
    print("\n".join([f"{config['task']}: {label_metadata.get('task_type', 'labels')}, "
                     f"{task.num_classes} classes", *lines]))  # fmt: skip
    path = draw_sheet(datasets, names, Path(config["log_dir"]) / f"{config['task']}_samples.png")
    print(f"\nwritten: {path}")
    return path


def _measure(config: dict[str, Any]) -> Measure:
    """Choose how the length of a text is measured: in tokens, if there is a tokenizer."""
    weights, settings = BACKBONES[config["backbone"]], assembly.backbone_settings(config)
    try:
        tokenizer = weights.tokenizer(config["vit"], settings, config["task"])
    except UserError as error:
        words = f"; words, for lack of a tokenizer: {error}"
        read = weights.positions(settings, config["task"])
        return Measure("words", lambda texts: [len(text.split()) for text in texts], read, words)
    return Measure("tokens", tokenizer.lengths, tokenizer.context)


def survey(split: str, dataset: ArrowDataset, task: Task, count: Count) -> Survey:
    """Read one split once, a row at a time."""
    labels = dataset.labels
    several = labels.ndim > 1
    classes = labels.sum(0).long() if several else labels.bincount(minlength=task.num_classes)
    unlabelled = int((labels.sum(1) == 0).sum()) if several else 0
    sizes, broken, images = _read_images(split, dataset)
    lengths, texts = _read_texts(dataset, count)
    return Survey(split, dataset.observed, classes.numpy(), unlabelled,
                  lengths, sizes, broken, images, texts)  # fmt: skip


def _number(content: Any) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=DIGEST).digest())


def _read_images(split: str, dataset: ArrowDataset) -> tuple[np.ndarray, list[int], np.ndarray]:
    sizes, broken, digests = [], [], []
    there = np.flatnonzero(dataset.observed != MISSING_IMAGE).tolist()
    column = dataset.table.column("image")
    for row in tqdm(there, desc=split, unit="image", disable=None):
        data = column[row].as_py() or b""
        digests.append(_number(data))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sizes.append(Image.open(BytesIO(data), formats=FORMATS).size)  # the header only
        except Exception:  # noqa: BLE001  Pillow's decoders raise many kinds
            broken.append(row)
    return np.array(sizes, dtype=int).reshape(-1, 2), broken, np.array(digests, dtype=np.uint64)


def _read_texts(dataset: ArrowDataset, count: Count) -> tuple[np.ndarray, np.ndarray]:
    there = (i for i, row in enumerate(dataset.rows) if dataset.observed[row] != MISSING_TEXT)
    texts = map(dataset.text, there)
    lengths, digests = [], []
    while some := list(islice(texts, TEXTS_AT_ONCE)):
        lengths += count(some)
        digests += [_number(text.encode("utf-8", "surrogatepass")) for text in some]
    return np.array(lengths, dtype=int), np.array(digests, dtype=np.uint64)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lay out a table, its first column to the left."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, wide, strict=True)))
            for row in cells]  # fmt: skip


def _rows(surveys: list[Survey]) -> list[str]:
    rows = [(s.split, len(s.states), *count_cases(s.states), s.unlabelled) for s in surveys]
    return _table(("split", "rows", "complete", "no text", "no image", "no class"), rows)


def _classes(surveys: list[Survey], names: Sequence[str]) -> Iterator[str]:
    order = list(range(len(names)))
    if len(order) > MANY_CLASSES:
        by_size = np.argsort(-surveys[0].classes, kind="stable").tolist()
        order = by_size[:ENDS] + by_size[-ENDS:]
        yield f"the {ENDS} most and the {ENDS} least frequent of {len(names)} classes:"
    rows = [(names[i], *(s.classes[i] for s in surveys)) for i in order]
    yield from _table(("class", *(s.split for s in surveys)), rows)
    for each in surveys:
        if unseen := [name for name, seen in zip(names, each.classes, strict=False) if not seen]:
            shown = ", ".join(unseen[:ENDS]) + ", ..." * (len(unseen) > ENDS)
            yield f"no {each.split} row: {shown}"


def _spread(values: np.ndarray) -> tuple[Any, Any, Any]:
    """Smallest, middle and largest of some whole numbers; dashes of none."""
    if not len(values):
        return ("-",) * 3
    return int(values.min()), f"{np.median(values):g}", int(values.max())


def _lengths(surveys: list[Survey], measure: Measure) -> Iterator[str]:
    unit, _, read, note = measure
    yield f"lengths of texts in {unit} (the backbone reads {read} tokens{note})"
    rows = []
    for each in surveys:
        cut = 100 * (each.lengths > read).mean() if len(each.lengths) else 0
        rows.append((each.split, *_spread(each.lengths), f"{cut:.1f} %"))
    yield from _table(("split", "least", "median", "most", f"over {read}"), rows)


def _images(surveys: list[Survey]) -> Iterator[str]:
    yield "sizes of images in pixels"
    rows = [(s.split, *_spread(s.sizes[:, 0]), *_spread(s.sizes[:, 1])) for s in surveys]
    sides = [f"{name} {side}" for side in ("width", "height") for name in ("least", "median", "most")]
    yield from _table(("split", *sides), rows)
    for each in surveys:
        if each.broken:
            rows = ", ".join(map(str, each.broken[:ENDS])) + ", ..." * (len(each.broken) > ENDS)
            yield f"{each.split}: {len(each.broken)} images are none, rows {rows}"


def _duplicates(surveys: list[Survey]) -> Iterator[str]:
    """Count what comes twice: within a split, and in a split that another holds too."""
    yield "duplicates: rows whose image or text an earlier row, or another split, has too"
    rows = [(each.split, *(len(many) - len(np.unique(many)) for many in (each.images, each.texts)))
            for each in surveys]  # fmt: skip
    for one, other in combinations(surveys, 2):
        pairs = ((one.images, other.images), (one.texts, other.texts))
        shared = (int(np.isin(second, first).sum()) for first, second in pairs)
        rows.append((f"{other.split} in {one.split}", *shared))
    yield from _table(("where", "same image", "same text"), rows)
