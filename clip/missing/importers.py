"""Import masks that others drew: .pt, .npz, .jsonl and .csv files.

The released DCP code and MoRA save a float tensor with one missing case per arrow row. AOEPT writes one jsonl file for
all splits, whose ids have lost leading zeros, folders and file suffixes.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.utils.errors import UserError

SUFFIXES = (".pt", ".npz", ".jsonl", ".csv")
FLAGS = {"0": "0", "0.0": "0", "false": "0", "1": "1", "1.0": "1", "true": "1"}
CASE_OF_NUMBER = {str(number(case)): case for case in range(len(CASES)) for number in (int, float)}
CASE_OF_FLAGS = {"00": COMPLETE, "10": MISSING_TEXT, "01": MISSING_IMAGE}  # text missing, image missing; never both


def import_mask(path: str | Path, size: int, split: str, row_ids: Sequence[object] | None = None) -> np.ndarray:
    """Read a mask that somebody else drew.

    Args:
        path: .pt or .npz with one number per row, or .jsonl or .csv with the columns `id`, `text_missing` and
            `image_missing`, or with the one column `missing_type`.
        size: number of rows of the split's arrow file.
        split: name of the split; the name of the array in an .npz with several.
        row_ids: ids of the rows, (size,). A file with ids may be in any order and contain other splits too; without
            ids, here or in the file, it is in row order.

    Returns:
        Missing cases, (size,) uint8.

    Raises:
        UserError: the kind of file is unknown, it cannot be read, it does not contain every row exactly once, or a row
            has no valid case, such as both modalities missing.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is not a mask file; use one of {', '.join(SUFFIXES)}")
    try:
        cases, ids = _read(path, split)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  numpy, torch and pandas raise many kinds on damaged files
        raise UserError(
            f"{path} is not a readable mask ({error!r:.80}); use a complete file of plain numbers, without code"
        ) from None
    if ids is not None and row_ids is not None:
        cases = _in_row_order(path, ids, cases, row_ids)
    if cases.shape != (size,):
        raise UserError(
            f"{path} has {' x '.join(map(str, cases.shape))} rows, but the {split} split has {size}; "
            "use a mask that was drawn for this arrow file"
        )
    if not (valid := np.isin(cases, range(len(CASES)))).all():
        row = int(np.argmin(valid))
        known = ", ".join(f"{case} ({name})" for case, name in enumerate(CASES))
        raise UserError(f"{path} has {cases[row]} in row {row}; a missing case is one of {known}")
    return cases.astype(np.uint8)


def _read(path: Path, split: str) -> tuple[np.ndarray, list | None]:
    """Return the missing cases and, if the file has them, the ids of its rows."""
    if path.suffix == ".pt":
        import torch  # takes seconds, and no other format needs it

        mask = torch.as_tensor(torch.load(path, weights_only=True, map_location="cpu"))
        if mask.numel() > path.stat().st_size:
            raise ValueError("it claims more numbers than it has bytes")
        return mask.double().numpy(), None
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            if split in file:
                return file[split], None
            (mask,) = (array for array in file.values() if array.ndim == 1)
        return mask, None
    if path.suffix == ".jsonl":
        # Types as written: an id "0162024" must not become a number.
        records = pd.read_json(path, lines=True, dtype=False, encoding="utf-8-sig")
    else:
        records = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if "missing_type" in records:
        columns, wanted = ["missing_type"], "0, 1 or 2"
        cases = records["missing_type"].astype(str).map(CASE_OF_NUMBER)
    else:
        columns, wanted = ["text_missing", "image_missing"], "true or false (1 or 0) each, and never both true"
        text, image = (records[name].astype(str).str.lower().map(FLAGS) for name in columns)
        cases = (text + image).map(CASE_OF_FLAGS)
    if (bad := cases.isna()).any():
        row = int(bad.argmax())
        found = ", ".join(f"{name}={records[name].tolist()[row]!r}" for name in columns)
        raise UserError(f"{path} has {found} in record {row + 1}; it must be {wanted}")
    if "id" in records and records["id"].isna().any():
        raise UserError(f"{path} has records without id; give every record one")
    return cases.to_numpy(np.uint8), records["id"].tolist() if "id" in records else None


def _in_row_order(path: Path, ids: Sequence, cases: np.ndarray, row_ids: Sequence) -> np.ndarray:
    """Select the case of each row by its id."""
    same_spelling = set(map(str, row_ids)) <= set(map(str, ids))
    spell = str if same_spelling else _bare_id
    wanted = pd.Index([spell(row_id) for row_id in row_ids])
    found = pd.Series(cases, index=[spell(row_id) for row_id in ids])
    found = found[found.index.isin(wanted)]
    for place, index in (("the arrow file", wanted), (path, found.index)):
        if index.has_duplicates:
            raise UserError(f"{place} has the id {index[index.duplicated()][0]!r} twice; give every row its own id")
    if len(absent := wanted.difference(found.index, sort=False)):
        raise UserError(
            f"{path} has {len(found)} of {len(wanted)} rows and not {absent[0]!r}; use a mask of this data set"
        )
    return found[wanted].to_numpy()


def _bare_id(row_id: object) -> str:
    """Return an id as AOEPT leaves it: "0162024" is 162024, "pie_7.jpg" pie_7, "img/01235.png" 1235."""
    stem = re.sub(r"^.*/|\.(jpe?g|png)$", "", str(row_id), flags=re.IGNORECASE)
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem
