"""Columns of arrow tables as arrays, without a Python object for every number. A leaf."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of numbers (rows,), or of lists of equal length (rows, C), as one array.

    Raises:
        ValueError: a row has none, or the lists are not of one length.
    """
    if column.null_count:
        raise ValueError("a row has none")
    if not hasattr(column.type, "value_type"):
        return column.to_numpy()
    lengths = pc.list_value_length(column).unique().to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"lists of {lengths[0]} and of {lengths[1]}")
    return pc.list_flatten(column).to_numpy().reshape(len(column), *lengths)
