"""Missing tables that other people made, brought into ours: .pt, .jsonl, .csv and .npz.

The released code and MoRA save a float tensor with one state per arrow row. AOEPT writes one jsonl
for all splits, its ids having lost leading zeros, folders and file suffixes on the way.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clip.missing.files import UNREADABLE, check_table
from clip.missing.masks import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.utils.errors import UserError

FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
STATE_OF_FLAGS = {  # (text missing, image missing); a row never loses both
    (False, False): COMPLETE,
    (True, False): MISSING_TEXT,
    (False, True): MISSING_IMAGE,
}
STATE_OF_NUMBER = {spelling: state for state in STATE_OF_FLAGS.values() for spelling in (str(state), str(float(state)))}


def import_table(path: str | Path, size: int, split: str, row_ids: Sequence[object] | None = None) -> np.ndarray:
    """Read a table that somebody else made.

    Args:
        path: .pt or .npz with one number per row, or .jsonl or .csv with the columns `id`,
            `text_missing` and `image_missing`, or with the one column `missing_type`.
        size: Number of arrow rows in the split.
        split: Name of the split, for the messages.
        row_ids: Ids of the rows, (size,). A file with ids may then stand in any order and hold
            other splits too; a file without ids, or a call without these, is in row order.

    Returns:
        States, (size,) uint8.

    Raises:
        UserError: The kind of file is unknown, it cannot be read, it does not cover every row
            exactly once, or a row has no valid state, such as both modalities missing.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise UserError(f"{path}: a missing table is a file of the kind {', '.join(READERS)}")
    try:
        states, ids = READERS[path.suffix](path)
    except UserError:
        raise
    except (*UNREADABLE, csv.Error) as error:
        raise UserError(
            f"{path} is no readable missing table ({type(error).__name__}): it must exist, be whole"
            " and hold plain numbers, no code"
        ) from error
    if ids is not None and row_ids is not None:
        states = _in_row_order(path, ids, states, row_ids)
    return check_table(path, states, size, split)


def _read_pt(path: Path) -> tuple[np.ndarray, None]:
    import torch  # here only: every other format must do without it

    table = torch.as_tensor(torch.load(path, weights_only=True, map_location="cpu"))
    return table.double().numpy(), None


def _read_npz(path: Path) -> tuple[np.ndarray, None]:
    with np.load(path, allow_pickle=False) as file:
        tables = [array for array in file.values() if array.ndim == 1]
    if len(tables) != 1:
        raise UserError(f"{path} has {len(tables)} arrays of one dimension: leave the table alone")
    return tables[0], None


def _read_jsonl(path: Path) -> tuple[list[int], list | None]:
    with open(path, encoding="utf-8-sig") as file:
        return _read_records(path, [json.loads(line) for line in file if line.strip()])


def _read_csv(path: Path) -> tuple[list[int], list | None]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return _read_records(path, list(csv.DictReader(file)))


READERS = {".pt": _read_pt, ".npz": _read_npz, ".jsonl": _read_jsonl, ".csv": _read_csv}


def _read_records(path: Path, records: list[Mapping]) -> tuple[list[int], list | None]:
    """Return the states and, if the file has any, the ids of the records."""
    states = [_state(f"{path}, record {n},", record) for n, record in enumerate(records, 1)]
    has_ids = any("id" in record for record in records)
    return states, [record["id"] for record in records] if has_ids else None


def _state(place: str, record: Mapping) -> int:
    if "missing_type" in record:
        state = STATE_OF_NUMBER.get(str(record["missing_type"]))
        found, wanted = f"missing_type={record['missing_type']!r}", "0, 1 or 2"
    else:
        text, image = record.get("text_missing"), record.get("image_missing")
        flags = FLAGS.get(str(text).lower()), FLAGS.get(str(image).lower())
        state = STATE_OF_FLAGS.get(flags)
        found = f"text_missing={text!r} and image_missing={image!r}"
        wanted = "true or false (1 or 0) each, never true both"
    if state is None:
        raise UserError(f"{place} has {found}: it must be {wanted}")
    return state


def _in_row_order(path: Path, ids: Sequence[object], states: Sequence[int], row_ids: Sequence[object]) -> list[int]:
    """Pick the state of each of our rows by its id, in our order."""
    same_spelling = set(map(str, row_ids)) <= set(map(str, ids))
    spell = str if same_spelling else _bare_id
    keys = [spell(row_id) for row_id in row_ids]
    wanted = set(keys)
    pairs = [(spell(i), state) for i, state in zip(ids, states, strict=True) if spell(i) in wanted]
    _refuse_repeats("the arrow file", keys)
    _refuse_repeats(path, [key for key, _ in pairs])
    found = dict(pairs)
    absent = [row_id for row_id, key in zip(row_ids, keys, strict=True) if key not in found]
    if absent:
        raise UserError(
            f"{path} has {len(found)} of {len(keys)} rows, {absent[0]!r} is absent: import a table of this data set"
        )
    return [found[key] for key in keys]


def _bare_id(model_config: object) -> str:
    """An id as AOEPT leaves it: "0162024" is 162024, "pie_7.jpg" pie_7, "img/01235.png" 1235."""
    stem = re.sub(r"^.*/|\.(jpe?g|png)$", "", str(model_config), flags=re.IGNORECASE)
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem


def _refuse_repeats(place: str | Path, keys: Sequence[str]) -> None:
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise UserError(f"{place} has the id {repeated[0]!r} twice: every row needs its own")
