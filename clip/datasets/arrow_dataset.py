"""Samples of one split, memory-mapped and opened anew in every process."""

from collections.abc import Callable, Iterable
from io import BytesIO
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

from clip.datasets.columns import numbers
from clip.datasets.shards import open_table
from clip.datasets.states import check_columns, observed_cases
from clip.missing.masks import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import Transform
from clip.utils.errors import UserError
from clip.utils.images import FORMATS

PLOT_POLICIES = ("first", "longest", "all")
UNKNOWN = -1  # no token has this id


class ArrowDataset(Dataset):
    """Pairs of image and text of which the missing table takes one away.

    A missing image is never decoded and comes empty; a missing text is the empty one.

    Args:
        paths: an arrow file as make_arrow.py writes it, or all shards of one in their order.
        text_column: name of its text column, a list of strings a row.
        num_classes: labels must be 0..num_classes-1, or rows of num_classes zeros and ones.
        transform: Pillow image -> (3, H, W) uint8; its ``empty`` stands for a missing one.
        tokenize: texts -> (N, L) ids.
        plots: which texts of a row are samples: its first that is not blank, its longest, or all.
        simulate: seed with which each epoch draws the states of complete samples anew (paper,
            Figure 5); None to leave them complete.

    Raises:
        UserError: a file is absent, truncated or foreign, or a label is out of range.
    """

    def __init__(
        self,
        *paths: Path,
        text_column: str,
        num_classes: int,
        transform: Transform,
        tokenize: Callable[[Iterable[str]], Tensor],
        plots: str = "first",
        simulate: int | None = None,
    ):
        self.paths, self.text_column, self.num_classes = paths, text_column, num_classes
        self.transform, self.tokenize = transform, tokenize
        self.simulate, self.plots = simulate, plots
        # Shared with live workers: the epoch, and every text's ids once one of them made them.
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self.empty_text = tokenize([""])[0]
        self._open: pa.Table | None = None
        self.num_rows = self.table.num_rows
        self.labels = self._read_labels()  # (rows,) int64 or (rows, C) float32
        self.rows, self.texts = self._select(plots)  # (samples,): arrow row, number of its text
        self.observed = observed_cases(self.table, text_column)  # (rows,) states without simulation
        self.missing = self.observed
        shape = len(self.rows), len(self.empty_text)
        self.ids = torch.full(shape, UNKNOWN, dtype=torch.int32).share_memory_()

    @property
    def place(self) -> str:
        """The split's file, for messages."""
        others = len(self.paths) - 1
        return f"{self.paths[0]}{f' (and {others} more shards)' * bool(others)}"

    @property
    def table(self) -> pa.Table:
        """The memory-mapped table of this process."""
        if self._open is None:
            self._open = open_table(*self.paths)
            needed = {"image", "label", self.text_column}
            if absent := sorted(needed - set(self._open.column_names)):
                raise UserError(f"{self.place} lacks the columns {absent}; DATA.md lists them")
            check_columns(self._open, self.text_column, self.place)
        return self._open

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": None}  # a worker opens the file itself

    def set_missing(self, table: np.ndarray) -> None:
        """Take over a missing table, (rows,) states."""
        assert table.shape == (self.num_rows,), (table.shape, self.num_rows)
        self.missing = table

    def row_ids(self) -> list[str] | None:
        """Give the rows' image_id, or None in files without that column."""
        if "image_id" not in self.table.column_names:
            return None
        return [str(value) for value in self.table.column("image_id").to_pylist()]

    def _read_labels(self) -> Tensor:
        try:
            labels = torch.tensor(numbers(self.table.column("label")))
            several = labels.ndim == 2
            inside = (labels >= 0) & (labels < (2 if several else self.num_classes))
            bad = ~(inside & (labels == labels.long()))  # NaN is never allowed
            bad = bad.any(1) if several else bad
            if several and labels.shape[1] != self.num_classes:
                raise UserError(
                    f"{self.place}: labels of {labels.shape[1]} classes, the task has "
                    f"{self.num_classes}; is this the file of another data set?"
                )
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.place}: labels are no numbers of one shape ({error})") from None
        if bad.any():
            row = int(bad.nonzero()[0])
            allowed = "zeros and ones" if several else f"0 to {self.num_classes - 1}"
            raise UserError(f"{self.place}: row {row} has the label {labels[row].tolist()}; allowed: {allowed}")
        return labels.float() if several else labels.long()

    def _select(self, plots: str) -> tuple[np.ndarray, np.ndarray]:
        if plots not in PLOT_POLICIES:
            raise UserError(f"plots={plots!r} is unknown; choose one of {', '.join(PLOT_POLICIES)}")
        rows = np.arange(self.num_rows)
        if plots == "first":
            return rows, np.zeros_like(rows)
        texts = self.table.column(self.text_column)
        if plots == "all":
            counts = pc.fill_null(pc.list_value_length(texts), 0).to_numpy()
            starts = np.cumsum(counts) - counts
            return np.repeat(rows, counts), np.arange(counts.sum()) - np.repeat(starts, counts)
        lengths = ([len(text or "") for text in row or [""]] for row in texts.to_pylist())
        return rows, np.array([row.index(max(row)) if row else 0 for row in lengths], dtype=int)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = int(self.rows[index])
        state = self._state(index)
        return {
            "image": self.transform.placeholder(lambda: self._size(row))
            if state == MISSING_IMAGE
            else self.image(row, self.transform),
            "tokens": self.empty_text if state == MISSING_TEXT else self.tokens(index),
            "label": self.labels[row],
            "missing_type": torch.tensor(state),
            "sample_id": torch.tensor(index),
        }

    def sample_labels(self) -> Tensor:
        """Give the labels in the order of the samples, (samples,) or (samples, C)."""
        return self.labels[torch.from_numpy(self.rows)]

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: what ``simulate`` draws depends on it, in every worker."""
        self.epoch.fill_(epoch)

    def _state(self, index: int) -> int:
        state = int(self.missing[self.rows[index]])
        if self.simulate is None or state != COMPLETE:
            return state
        return Random(f"{self.simulate}/{int(self.epoch)}/{index}").randrange(len(CASES))

    def _size(self, row: int) -> tuple[int, int] | None:
        """Read width and height of a row's image, None if it never had one."""
        return None if self.observed[row] == MISSING_IMAGE else self.image(row, lambda image: image.size)

    def tokens(self, index: int) -> Tensor:
        """Give the ids (L,) of a sample's text, made once."""
        row = self.ids[index]
        if (row == UNKNOWN).any():  # another worker may be half-way through it
            row.copy_(self.tokenize([self.text(index)])[0])
        return row.long()

    def text(self, index: int) -> str:
        """Read the text of a sample, whatever the missing table says."""
        texts = self.table.column(self.text_column)[int(self.rows[index])].as_py() or [""]
        if self.plots == "first":
            return next((text for text in texts if text and text.strip()), "")
        return texts[self.texts[index]] or ""

    def image(self, row: int, transform: Callable[[Image.Image], Any]) -> Any:
        """Decode and transform the image of a row, whatever the missing table says.

        Raises:
            UserError: its bytes are no image.
        """
        data = self.table.column("image")[row].as_py() or b""
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return transform(image)
        except Exception as error:  # noqa: BLE001  Pillow's decoders raise many kinds
            raise UserError(
                f"{self.place}: the image of row {row} cannot be decoded "
                f"({type(error).__name__}); "
                "make the file again with make_arrow.py, which leaves such rows out"
            ) from None
