"""Import masks made by other tools from .pt, .npz, .jsonl and .csv files.

The released DCP code and MoRA save a float tensor with one missing case per arrow row. AOEPT writes one jsonl file for
all splits, whose ids have no leading zeros, folders or file suffixes.
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
    """Read a mask file and return the missing case of each row, (size,) uint8.

    Args:
        path: .pt or .npz with one number per row, or .jsonl or .csv with the columns `id`, `text_missing` and
            `image_missing`, or with the one column `missing_type`.
        size: number of rows of the split's arrow file.
        split: name of the split; the name of the array in an .npz with several.
        row_ids: ids of the rows, (size,). A file with ids may be in any order and contain other splits too; without
            ids, here or in the file, it is in row order.
    """
    path = Path(path)
    try:
        if path.suffix in (".pt", ".npz"):
            cases = _read_array(path, split)
        elif path.suffix in SUFFIXES:
            cases = _read_records(path, row_ids)
        else:
            raise UserError(f"{path} is not a mask file; use one of {', '.join(SUFFIXES)}")
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  numpy, torch and pandas raise many types for damaged files
        raise UserError(
            f"{path} is not a readable mask ({error!r:.80}); use a complete file of plain numbers, without code"
        ) from None
    if cases.shape != (size,):
        rows = " x ".join(map(str, cases.shape))
        raise UserError(f"{path} has {rows} rows, but the {split} split has {size}; use a mask of this arrow file")
    if not (valid := np.isin(cases, range(len(CASES)))).all():
        row, known = int(np.argmin(valid)), ", ".join(f"{case} ({name})" for case, name in enumerate(CASES))
        raise UserError(f"{path} has {cases[row]} in row {row}; a missing case is one of {known}")
    return cases.astype(np.uint8)


def _read_array(path: Path, split: str) -> np.ndarray:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            (mask,) = [file[split]] if split in file else [array for array in file.values() if array.ndim == 1]
        return mask
    import torch  # takes seconds, and no other format needs it

    mask = torch.as_tensor(torch.load(path, weights_only=True, map_location="cpu"))
    if mask.numel() > path.stat().st_size:
        raise ValueError("more numbers than bytes")
    return mask.double().numpy()


def _read_records(path: Path, row_ids: Sequence[object] | None) -> np.ndarray:
    """Read one missing case per record, in the order of the row ids if the records have ids."""
    if path.suffix == ".jsonl":  # types as written: an id "0162024" must not become a number
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
    if row_ids is None or "id" not in records:
        return cases.to_numpy()
    if records["id"].isna().any():
        raise UserError(f"{path} has records without an id; add the id of each record")
    spell = str if set(map(str, row_ids)) <= set(map(str, records["id"].tolist())) else _bare_id
    wanted_ids, cases.index = pd.Index(map(spell, row_ids)), pd.Index(map(spell, records["id"].tolist()))
    cases = cases[cases.index.isin(wanted_ids)]
    for place, ids in (("the arrow file", wanted_ids), (path, cases.index)):
        if ids.has_duplicates:
            raise UserError(f"{place} has the id {ids[ids.duplicated()][0]!r} twice; give every row its own id")
    if len(absent := wanted_ids.difference(cases.index, sort=False)):
        found = f"{len(cases)} of {len(wanted_ids)} rows and not {absent[0]!r}"
        raise UserError(f"{path} has {found}; use a mask of this data set")
    return cases[wanted_ids].to_numpy()


def _bare_id(row_id: object) -> str:
    """Normalise an id as AOEPT does: "0162024" is 162024, "pie_7.jpg" pie_7, "img/01235.png" 1235."""
    stem = re.sub(r"^.*/|\.(jpe?g|png)$", "", str(row_id), flags=re.IGNORECASE)
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem
