"""Map-style datasets of one split: memory-mapped and reopened in each process, or encoded already."""

import copy
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from clip.datasets.shards import open_table
from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import Transform
from clip.utils.errors import UserError
from clip.utils.images import validate_image

NO_TOKEN = -1  # marks texts that are not tokenised yet
SAMPLED_IMAGES = 256  # spread evenly; hashing all images of 10 GB would take a minute


class ArrowDataset(Dataset):
    """Pairs of image and text, of which a mask removes one modality.

    A missing image is never decoded and becomes a placeholder; a missing text becomes the empty text.

    Args:
        paths: an arrow file as make_arrow.py writes it, or all its shards in order.
        text_column: name of the text column, a list of strings per row.
        num_classes: number of classes, C.
        multilabel: whether labels are rows of C zeros and ones; otherwise class numbers or one-hot rows.
        transform: Pillow image -> (3, H, W) uint8.
        tokenize: texts -> token ids (N, L).
        plots: which texts of a row are samples: the first that is not blank, the longest, or all.
    """

    def __init__(
        self,
        *paths: Path,
        text_column: str,
        num_classes: int,
        multilabel: bool,
        transform: Transform,
        tokenize: Callable[[Iterable[str]], Tensor],
        plots: str = "first",
    ):
        self.paths, self.text_column = paths, text_column
        self.num_classes, self.multilabel = num_classes, multilabel
        self.transform, self.tokenize, self.plots = transform, tokenize, plots
        self._table: pa.Table | None = None
        self.num_rows = self.table.num_rows
        self.labels = self._read_labels()  # (rows,) int64 or (rows, C) float32
        self.rows, self.texts = self._select_samples()  # (samples,): arrow row, index of its text
        self.observed = observed_cases(self.table, text_column)  # (rows,) missing cases in the data
        self.mask = self.observed
        self.simulate: int | None = None
        self.empty_text = tokenize([""])[0]
        # Shared with live workers: the epoch, and the token ids of every text once a worker has made them.
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()
        shape = len(self.rows), len(self.empty_text)
        self.token_cache = torch.full(shape, NO_TOKEN, dtype=torch.int32).share_memory_()

    @property
    def place(self) -> str:
        """The split's file, for messages."""
        others = len(self.paths) - 1
        return f"{self.paths[0]}{f' (and {others} more shards)' * bool(others)}"

    @property
    def table(self) -> pa.Table:
        """The memory-mapped table of this process."""
        if self._table is None:
            table = open_table(*self.paths)
            texts = r"(large_)?list<.*: (large_)?string.*>"
            for name, kind in {"image": r"(large_)?binary", "label": r".*", self.text_column: texts}.items():
                found = [str(field.type) for field in table.schema if field.name == name]
                if len(found) != 1 or not re.fullmatch(kind, found[0]):
                    found = found or "no column"
                    raise UserError(f"{self.place} has {found} as {name}; it must be one column of the type in DATA.md")
            self._table = table
        return self._table

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_table": None}  # a worker opens the file itself

    def _read_labels(self) -> Tensor:
        try:
            labels = torch.tensor(column_to_numpy(self.table.column("label")))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.place}: labels are not numbers of one shape ({error}); make it again") from None
        wanted, one_hot = (self.num_rows, self.num_classes), labels.ndim == 2
        if self.num_rows and labels.shape != wanted and (self.multilabel or one_hot):
            raise UserError(
                f"{self.place}: labels have the shape {tuple(labels.shape)}, not {wanted}; use files of this task"
            )
        valid = (labels >= 0) & (labels < (2 if one_hot else self.num_classes)) & (labels == labels.long())
        allowed = f"0 to {self.num_classes - 1}"
        if one_hot:
            valid, allowed = valid.all(1), f"{self.num_classes} zeros and ones"
        if one_hot and not self.multilabel:
            valid, allowed = valid & (labels.sum(1) == 1), f"{allowed} with a single one"
        if not valid.all():
            row = int(valid.int().argmin())
            raise UserError(f"{self.place}: row {row} has the label {labels[row].tolist()}; allowed: {allowed}")
        if self.multilabel:
            return labels.float()
        return labels.int().argmax(1) if one_hot else labels.long()

    def _select_samples(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(self.num_rows)
        if self.plots == "first":
            return rows, np.zeros_like(rows)
        texts = self.table.column(self.text_column)
        if self.plots == "all":
            counts = pc.fill_null(pc.list_value_length(texts), 0).to_numpy()
            starts = np.cumsum(counts) - counts
            return np.repeat(rows, counts), np.arange(counts.sum()) - np.repeat(starts, counts)
        lengths = ([len(text or "") for text in row or [""]] for row in texts.to_pylist())
        return rows, np.array([row.index(max(row)) if row else 0 for row in lengths], dtype=int)

    def row_ids(self) -> list[str] | None:
        """Return the image_id of each row, or None if the file does not have that column."""
        if "image_id" not in self.table.column_names:
            return None
        return list(map(str, self.table.column("image_id").to_pylist()))

    def sample_labels(self) -> Tensor:
        """Return the labels in the order of the samples, (samples,) or (samples, C)."""
        return self.labels[torch.from_numpy(self.rows)]

    def keep_rows(self, rows: np.ndarray) -> None:
        """Drop the samples of all other rows; masks and labels still have one entry for each row of the file."""
        kept = np.isin(self.rows, rows)
        self.rows, self.texts = self.rows[kept], self.texts[kept]
        self.token_cache = self.token_cache[: len(self.rows)].clone().share_memory_()

    def set_mask(self, mask: np.ndarray, simulate: int | None = None) -> None:
        """Set the missing case of each row, (rows,).

        With a seed ``simulate``, each epoch draws new cases for complete samples (paper, Figure 5).
        """
        assert mask.shape == (self.num_rows,), (mask.shape, self.num_rows)
        self.mask, self.simulate = mask, simulate

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the simulated cases depend, in every worker."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row, case = int(self.rows[index]), self.case(index)
        if case == MISSING_IMAGE:
            stored = self.transform.keeps_shape and self.observed[row] != MISSING_IMAGE
            image = self.transform.placeholder(self.image(row, lambda image: image.size) if stored else None)
        else:
            image = self.image(row, self.transform)
        return {
            "image": image,
            "tokens": self.empty_text if case == MISSING_TEXT else self.tokens(index),
            "label": self.labels[row],
            "missing_type": torch.tensor(case),
            "sample_id": torch.tensor(index),
        }

    def case(self, index: int) -> int:
        """Return the missing case of a sample, which depends on the epoch if cases are simulated."""
        case = int(self.mask[self.rows[index]])
        if self.simulate is not None and case == COMPLETE:
            case = Random(f"{self.simulate}/{int(self.epoch)}/{index}").randrange(len(CASES))
        return case

    def with_fixed_cases(self) -> list["ArrowDataset"]:
        """Return copies without simulated cases: one, or one per case that complete samples may be given."""
        copies = [copy.copy(self) for _ in range(1 if self.simulate is None else len(CASES))]
        for case, dataset in enumerate(copies):
            dataset.set_mask(np.where(self.mask == COMPLETE, case, self.mask))
        return copies

    def tokens(self, index: int) -> Tensor:
        """Return the token ids (L,) of a sample's text, tokenised once."""
        ids = self.token_cache[index]
        if (ids == NO_TOKEN).any():  # another worker may be half-way through writing them
            ids.copy_(self.tokenize([self.text(index)])[0])
        return ids.long()

    def text(self, index: int) -> str:
        """Read the text of a sample, regardless of the mask."""
        texts = self.table.column(self.text_column)[int(self.rows[index])].as_py() or [""]
        if self.plots == "first":
            return next((text for text in texts if text and text.strip()), "")
        return texts[self.texts[index]] or ""

    def image(self, row: int, transform: Callable[[Image.Image], Any]) -> Any:
        """Decode and transform the image of a row, regardless of the mask."""
        try:
            return validate_image(self.table.column("image")[row].as_py() or b"", transform)
        except UserError as error:
            raise UserError(
                f"{self.place}: row {row}: {error}; make the file again with make_arrow.py, which skips such rows"
            ) from None


class EncodedDataset(Dataset):
    """Features (K, samples, F) in place of images and texts, of each of the K copies from ``with_fixed_cases``."""

    def __init__(self, dataset: ArrowDataset, features: Tensor):
        self.dataset, self.features, self.labels = dataset, features, dataset.sample_labels()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return a batch; a DataLoader calls this in place of ``__getitem__`` for each index."""
        cases = torch.tensor([self.dataset.case(index) for index in indices])
        return {
            "features": self.features[cases if len(self.features) > 1 else 0, indices],
            "label": self.labels[indices],
            "missing_type": cases,
            "sample_id": torch.tensor(indices),
        }


def column_to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of numbers (rows,), or of lists of equal length (rows, C), without Python objects."""
    if column.null_count:
        raise ValueError("a row is empty")
    if not hasattr(column.type, "value_type"):
        return column.to_numpy()
    lengths = pc.list_value_length(column).unique().to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"lists of {lengths[0]} and of {lengths[1]}")
    return pc.list_flatten(column).to_numpy().reshape(len(column), *lengths)


def observed_cases(table: pa.Table, text_column: str) -> np.ndarray:
    """Return the missing case of each row in the data, before any simulation, (rows,) uint8.

    Blank strings are no text. A row without either modality counts as missing text: reading its image then raises an
    error with the row's number.
    """
    observed = [np.zeros(0, dtype=np.uint8)]
    for batch in table.select(["image", text_column]).to_batches():
        images, texts = batch.columns
        filled = pc.not_equal(pc.utf8_trim_whitespace(pc.list_flatten(texts).cast(pa.string())), "")
        of_row = pc.list_parent_indices(texts).filter(filled.fill_null(False))
        has_text = np.isin(np.arange(len(texts)), of_row.to_numpy())
        has_image = pc.fill_null(pc.binary_length(images), 0).to_numpy() > 0
        cases = np.where(has_text, np.where(has_image, COMPLETE, MISSING_IMAGE), MISSING_TEXT)
        observed.append(cases.astype(np.uint8))
    return np.concatenate(observed)


def fingerprint(*paths: Path) -> str:
    """Hash the content of a split, regardless of file names and shards, as "<rows> rows <hash>".

    Covers the schema, all values of all columns except images, the length of each image, and the bytes of
    ``SAMPLED_IMAGES`` images. Other bytes of the same length in another image are not detected.
    """
    table = open_table(*paths)
    columns = sorted(zip(table.schema, table.columns, strict=True), key=lambda pair: pair[0].name)
    schema = [(field.name, str(field.type)) for field, _ in columns]
    digest = hashlib.sha256(repr((table.num_rows, schema)).encode())
    sampled = np.linspace(0, table.num_rows - 1, min(table.num_rows, SAMPLED_IMAGES)).astype(int).tolist()
    for field, column in columns:
        if field.name == "image":
            digest.update(repr(pc.binary_length(column).to_pylist()).encode())
            column = [column[row] for row in sampled]
        for value in column:  # values, not buffers: buffers depend on how a file was cut into shards
            digest.update(repr(value.as_py()).encode())
    return f"{table.num_rows} rows {digest.hexdigest()[:16]}"
