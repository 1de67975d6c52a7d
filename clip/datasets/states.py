"""What rows really lack, read from the lengths of their images and from their texts alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip.datasets.shards import open_table
from clip.missing.masks import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.utils.errors import UserError

BINARY = (pa.binary(), pa.large_binary())
STRINGS = (pa.string(), pa.large_string())


def check_columns(table: pa.Table, text_column: str, place: str) -> None:
    """Refuse columns that hold something else than images and texts.

    Raises:
        UserError: names the column; or it comes twice.
    """
    for name in ("image", "label", text_column):
        if table.column_names.count(name) > 1:
            raise UserError(f"{place} has the column {name} twice; DATA.md lists what it needs")
    image, texts = (table.schema.field(name).type for name in ("image", text_column))
    if image not in BINARY:
        raise UserError(f"{place} has images of the type {image}; they must be binary")
    is_list = pa.types.is_list(texts) or pa.types.is_large_list(texts)
    if not is_list or texts.value_type not in STRINGS:
        raise UserError(f"{place} has {text_column} of the type {texts}; it must be list<string>")


def observed_cases(table: pa.Table, text_column: str) -> np.ndarray:
    """Find the state that each row has before anything is simulated; no image is read.

    A row with neither counts as without text: reading its image then fails with the row's number.

    Args:
        table: of ``open_table``.
        text_column: a list of strings a row; blank ones are no text.

    Returns:
        States, (rows,) uint8.
    """
    has_text = _joined(_has_text(chunk) for chunk in table.column(text_column).chunks)
    has_image = _joined(_has_image(chunk) for chunk in table.column("image").chunks)
    lacking = np.where(has_image, COMPLETE, MISSING_IMAGE)
    return np.where(has_text, lacking, MISSING_TEXT).astype(np.uint8)


def real_of_files(*paths: Path, text_column: str) -> np.ndarray:
    """Find the states of a split's rows; errors as in ``open_table``."""
    return observed_cases(open_table(*paths), text_column)


def _joined(parts: object) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def _has_text(chunk: pa.Array) -> np.ndarray:
    """Tell which lists hold a text that is not blank, (rows,) bool."""
    filled = pc.not_equal(pc.utf8_trim_whitespace(pc.list_flatten(chunk).cast(pa.string())), "")
    of_row = pc.list_parent_indices(chunk).to_numpy(zero_copy_only=False)
    found = np.zeros(len(chunk), dtype=bool)
    found[of_row[filled.fill_null(False).to_numpy(zero_copy_only=False)]] = True
    return found


def _has_image(chunk: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.binary_length(chunk), 0).to_numpy(zero_copy_only=False) > 0
