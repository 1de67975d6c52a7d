"""Missing tables on disk: written whole or not at all, refused when any setting differs.

A file holds the table and its settings, because a name alone lets a changed seed or size pass.
"""

import json
import os
import pickle
import struct
import tokenize
import uuid
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clip.missing.masks import CASES, MissingSettings, draw, table_hash
from clip.utils.errors import UserError

# What numpy, zipfile, json, csv and torch raise on a file that is not what its name says.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    AttributeError,
    RuntimeError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


def file_name(settings: MissingSettings) -> str:
    """Name a table's file by all its settings but size and observed states, which `load` checks."""
    share = f"{settings.missing_type}_{settings.ratio}_both{settings.both_ratio}"
    return f"{settings.dataset}_{settings.split}_missing_{share}_seed{settings.seed}.npz"


def written(settings: MissingSettings) -> dict[str, Any]:
    """Give what a file holds of its settings; of the real states a hash, if any row lacks some."""
    plain = asdict(settings)
    plain.pop("observed")
    return plain | ({"observed": table_hash(settings.observed_cases())} if settings.observed else {})


def load_or_draw(folder: str | Path, settings: MissingSettings) -> np.ndarray:
    """Load the table that lies in the folder, or draw it and leave it there.

    Processes may race for it: they draw the same table and each writes a whole file.

    Returns:
        States, (size,) uint8.

    Raises:
        UserError: The file there is not this table's, or the folder cannot be written.
    """
    path = Path(folder) / file_name(settings)
    if os.path.exists(path):
        return load(path, settings)
    table = draw(settings)
    save(path, table, settings)
    return table


def save(path: str | Path, table: np.ndarray, settings: MissingSettings) -> None:
    """Write a table with its settings, whole or not at all; make the folder if need be.

    Args:
        path: File to write or replace, .npz.
        table: States, (size,).
        settings: What the table was drawn from.

    Raises:
        UserError: The table does not fit the settings, or the file cannot be written.
    """
    path = Path(path)
    table = check_table(path, table, settings.size, settings.split)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            np.savez(file, table=table, settings=np.array(json.dumps(written(settings))))
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): set missing_table_root to a folder that can be written"
        ) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load(path: str | Path, settings: MissingSettings) -> np.ndarray:
    """Read a table that `save` wrote for exactly these settings.

    Returns:
        States, (size,) uint8.

    Raises:
        UserError: The file cannot be read, or a setting, the length or a state is not as asked.
    """
    path, asked = Path(path), written(settings)
    try:
        with np.load(path, allow_pickle=False) as file:
            table, saved = file["table"], dict(json.loads(str(file["settings"])))
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"{path} is no whole missing table ({type(error).__name__}): delete it to have it drawn again"
        ) from error
    for key in asked | saved:
        if saved.get(key) != asked.get(key):
            raise UserError(
                f"{path} has {key}={saved.get(key)!r}, but {key}={asked.get(key)!r} is asked for:"
                f" delete the file to have it drawn again, or set {key} back"
            )
    return check_table(path, table, settings.size, settings.split)


def check_table(path: str | Path, table: np.ndarray, size: int, split: str) -> np.ndarray:
    """Refuse a table of another length or with a state that does not exist.

    Args:
        path: Where the table comes from or goes to, for the message.
        table: States, (size,), of any number type.
        size: Number of arrow rows in the split.
        split: Name of the split, for the message.

    Returns:
        The same states as uint8.

    Raises:
        UserError: With the length or state found and the one wanted.
    """
    table = np.asarray(table)
    if table.shape != (size,):
        rows = len(table) if table.ndim == 1 else f"{table.shape} numbers instead of"
        raise UserError(
            f"{path} has {rows} rows, but the {split} split has {size}: make the table for this very arrow file"
        )
    valid = np.isin(table, range(len(CASES))) if table.dtype.kind in "buif" else np.zeros(size)
    if not valid.all():
        row = int(np.argmin(valid))
        states = ", ".join(f"{state} {name}" for state, name in enumerate(CASES))
        raise UserError(f"{path} has {table[row]} in row {row}, but a state is one of {states}")
    return table.astype(np.uint8)
