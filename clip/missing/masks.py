"""Masks of missing modalities: one missing case per row of an arrow file.

No row loses both modalities (paper, section 1). Rows in which a modality is missing in the data keep that case in every
mask, and simulated cases are drawn among the complete rows.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pandas as pd

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT, SPLITS


@dataclass(frozen=True)
class MissingConfig:
    """Which modalities are missing in which split."""

    types: Mapping[
        str, str
    ]  # split -> "text", "image" or "both"; with "both", some rows lose the text, others the image
    ratios: Mapping[str, float]  # split -> share of the complete rows that lose a modality, from 0 to 1
    both_ratio: float = 0.5  # share of missing images among the incomplete rows of the type "both", from 0 to 1
    seed: int = 0
    draw: str = "nested"  # for ``draw_mask``; "stream" for ``draw_released_masks``
    files: Mapping[str, str] = field(default_factory=dict)  # split -> mask file to import instead of drawing, or ""
    simulate: bool = False  # draw a new case for each complete training sample in each epoch (paper, Figure 5)


def draw_mask(dataset: str, split: str, observed: np.ndarray, missing: MissingConfig) -> np.ndarray:
    """Draw the mask of one split; equal arguments give equal masks on every machine.

    Complete rows are ranked by a hash of (dataset, split, seed, row), and the first of them lose a modality. Masks are
    therefore nested over the ratios, all types affect the same rows, and splits are independent. ``observed`` are the
    missing cases in the data; they and the result are (rows,) uint8.
    """
    mask = observed.astype(np.uint8)
    key = f"{dataset}/{split}/{missing.seed}"
    complete = np.flatnonzero(mask == COMPLETE).tolist()
    ranked = sorted(complete, key=lambda row: hashlib.sha256(f"{key}/{row}".encode()).digest())
    # Exact shares, as written in decimals: 0.29 is 29/100, which no float is.
    incomplete = ranked[: int(len(ranked) * Fraction(str(missing.ratios[split])))]
    image_share = Fraction(str({"text": 0, "image": 1, "both": missing.both_ratio}[missing.types[split]]))
    # Of the first j rows, floor(j * share) lose the image, for all j.
    images = [int(rank * image_share) for rank in range(len(incomplete) + 1)]
    mask[incomplete] = np.where(np.diff(images), MISSING_IMAGE, MISSING_TEXT)
    return mask


def draw_released_masks(observed: Mapping[str, np.ndarray], missing: MissingConfig) -> dict[str, np.ndarray]:
    """Draw the masks that the released DCP code draws in one run without cached masks.

    Faithful: one random stream passes through the splits in turn and the counts are truncated floats, so a split
    depends on the ones before it and 0.29 of 100 rows is 28. ``observed`` has the missing cases in the data of the
    first splits of ``SPLITS``, in that order; they and the results are (rows,) uint8.
    """
    assert tuple(observed) == SPLITS[: len(observed)], f"{tuple(observed)}: the stream passes through {SPLITS}"
    stream = random.Random(missing.seed)
    masks = {}
    for split, cases in observed.items():
        mask = masks[split] = cases.astype(np.uint8)
        complete = np.flatnonzero(mask == COMPLETE).tolist()
        incomplete = stream.sample(complete, int(len(complete) * missing.ratios[split]))
        mask[incomplete] = MISSING_IMAGE if missing.types[split] == "image" else MISSING_TEXT
        if missing.types[split] == "both":
            mask[stream.sample(incomplete, int(len(incomplete) * missing.both_ratio))] = MISSING_IMAGE
    return masks


def merge_observed(mask: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Overwrite a mask with the missing cases in the data, both (rows,)."""
    return np.where(observed == COMPLETE, mask, observed).astype(np.uint8)


def count_cases(mask: np.ndarray) -> tuple[int, int, int]:
    """Count the complete rows, those with missing text and those with missing image."""
    complete, no_text, no_image = np.bincount(mask, minlength=len(CASES)).tolist()
    return complete, no_text, no_image


def describe_masks(splits: Mapping[str, tuple[np.ndarray, np.ndarray]], missing: MissingConfig) -> str:
    """Return a table of the missing cases: those in the data, and those of the mask, which includes them.

    ``splits`` maps a split to the cases (N,) of its samples in the data and in the mask.
    """
    rows = {}
    for split, (observed, mask) in splits.items():
        drawn = f"missing {missing.types[split]} at {missing.ratios[split]:g}" if missing.ratios[split] else "none"
        source = missing.files.get(split) or drawn
        rows[split] = [*count_cases(observed), *count_cases(mask), source]
    cases = ["complete", "no text", "no image"]
    columns = [*((part, case) for part in ("in the data", "as used") for case in cases), ("", "mask")]
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table.to_string()


def mask_hash(mask: np.ndarray) -> str:
    """Return the SHA-256 (hex) over one byte per row: equal hashes mean equal masks."""
    return hashlib.sha256(np.asarray(mask, dtype=np.uint8).tobytes()).hexdigest()
