"""Which samples lack which modality: draw a missing table, count it, name it by its hash.

A missing table holds one state per arrow row: complete, without text or without image. A sample
never loses both (paper, section 1). Rows that really lack a modality keep that state, and what is
simulated is drawn among the others. `clip.missing.files` keeps tables on disk.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT, MISSING_TYPES, SPLITS
from clip.utils.errors import UserError

DRAWS = ("nested", "stream")  # `draw` and `draw_released_masks`

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SPLIT_NAME = re.compile(r"[A-Za-z0-9-]+")  # no underscore: it ends the data set in file names


@dataclass(frozen=True)
class MissingSettings:
    """Everything that decides one missing table.

    Args:
        dataset: Name of the data set, e.g. "mmimdb".
        split: Name of the split, e.g. "train".
        size: Number of arrow rows in the split.
        missing_type: "text", "image" or "both"; "both" means some rows lack one, some the other.
        ratio: Share of the rows that lose a modality, among those that have both, from 0 to 1.
        both_ratio: Share of those that lack the image when the type is "both", from 0 to 1.
        seed: Any whole number.
        observed: State that each row has before anything is simulated, a byte a row; b"" where all are
            complete.

    Raises:
        UserError: A value is outside its range; the message has the value and the range.
    """

    dataset: str
    split: str
    size: int
    missing_type: str
    ratio: float
    both_ratio: float
    seed: int
    observed: bytes = b""

    def __post_init__(self) -> None:
        _check_name("dataset", self.dataset, DATASET_NAME)
        _check_name("split", self.split, SPLIT_NAME)
        if self.missing_type not in MISSING_TYPES:
            raise UserError(f"missing_type={self.missing_type!r}: choose one of {MISSING_TYPES}")
        # Stored in one spelling each, so that 1 and 1.0 are one setting with one file name.
        object.__setattr__(self, "size", _whole("size", self.size))
        object.__setattr__(self, "ratio", _share("ratio", self.ratio))
        object.__setattr__(self, "both_ratio", _share("both_ratio", self.both_ratio))
        object.__setattr__(self, "seed", _whole("seed", self.seed))
        if self.size < 0:
            raise UserError(f"size={self.size}: give the number of rows, 0 or more")
        assert len(self.observed) in (0, self.size), (len(self.observed), self.size)
        if not any(self.observed):
            object.__setattr__(self, "observed", b"")

    def observed_cases(self) -> np.ndarray:
        """Give the states before anything is simulated, (size,) uint8, to be filled."""
        if not self.observed:
            return np.full(self.size, COMPLETE, dtype=np.uint8)
        return np.frombuffer(self.observed, dtype=np.uint8).copy()


def _check_name(key: str, value: str, pattern: re.Pattern) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise UserError(f"{key}={value!r}: use a name of the form {pattern.pattern}")


def _whole(key: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserError(f"{key}={value!r}: give a whole number")
    return int(value)


def _share(key: str, value: float) -> float:
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number or not 0 <= value <= 1:
        raise UserError(f"{key}={value!r}: give a number from 0 to 1")
    return abs(float(str(value)))  # str keeps a float32's 0.7 at 0.7; abs removes the sign of -0.0


def draw(settings: MissingSettings) -> np.ndarray:
    """Draw the table of one split; the same settings give the same table everywhere, always.

    Complete rows are ranked by a hash of (dataset, split, seed, row), and a share `ratio` of them,
    the first of the ranking, lose a modality. Hence tables are nested over the ratios, share their
    rows over the types, and splits do not depend on one another.

    Returns:
        States, (size,) uint8.
    """
    table = settings.observed_cases()
    rows = _ranked_rows(settings, np.flatnonzero(table == COMPLETE).tolist())
    missing_rows = rows[: _floor(len(rows), _exact(settings.ratio))]
    image_share = {"text": Fraction(0), "image": Fraction(1), "both": _exact(settings.both_ratio)}
    table[missing_rows] = _states(len(missing_rows), image_share[settings.missing_type])
    return table


def _ranked_rows(settings: MissingSettings, rows: list[int]) -> list[int]:
    """These rows in the order in which they lose a modality as the ratio grows."""
    key = f"{settings.dataset}/{settings.split}/{settings.seed}"
    return sorted(rows, key=lambda row: hashlib.sha256(f"{key}/{row}".encode()).digest())


def _states(count: int, image_share: Fraction) -> list[int]:
    """States by rank: the images lost among the first j are exactly floor(j * share), for all j."""
    lost = [_floor(rank, image_share) for rank in range(count + 1)]
    return [MISSING_IMAGE if lost[j + 1] > lost[j] else MISSING_TEXT for j in range(count)]


def _exact(share: float) -> Fraction:
    """The share as it is written in decimals: 0.29 is 29/100, which no float is."""
    return Fraction(str(share))


def _floor(count: int, share: Fraction) -> int:
    return count * share.numerator // share.denominator


def draw_released_masks(settings: Sequence[MissingSettings]) -> dict[str, np.ndarray]:
    """Draw what the released code draws in one run that finds no cached table.

    Faithful: one random stream passes through the splits in turn and the counts are truncated
    floats, so a split depends on the ones before it and 0.29 of 100 rows is 28.

    Args:
        settings: Of train, train and val, or all three, in this order, with the seed of the run.

    Returns:
        For each split its states, (size,) uint8.

    Raises:
        UserError: The splits are out of order or of several seeds.
    """
    splits, seeds = tuple(each.split for each in settings), {each.seed for each in settings}
    if splits != SPLITS[: len(splits)] or len(seeds) != 1:
        raise UserError(
            f"splits {splits} of seeds {sorted(seeds)}: the released code draws in the order {SPLITS} from one seed"
        )
    stream = random.Random(seeds.pop())
    return {each.split: _draw_from_stream(stream, each) for each in settings}


def _draw_from_stream(stream: random.Random, settings: MissingSettings) -> np.ndarray:
    table = settings.observed_cases()
    whole = np.flatnonzero(table == COMPLETE).tolist()
    rows = stream.sample(whole, int(len(whole) * settings.ratio))
    table[rows] = MISSING_IMAGE if settings.missing_type == "image" else MISSING_TEXT
    if settings.missing_type == "both":
        table[stream.sample(rows, int(len(rows) * settings.both_ratio))] = MISSING_IMAGE
    return table


def counts(table: np.ndarray) -> tuple[int, int, int]:
    """Count the rows that are complete, without text and without image.

    Args:
        table: States, (size,).
    """
    complete, no_text, no_image = (int((table == case).sum()) for case in range(len(CASES)))
    return complete, no_text, no_image


def merge_observed(table: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Put the real states over a table that was made without knowing them.

    Args:
        table: States, (size,).
        observed: States before anything is simulated, (size,).
    """
    return np.where(observed == COMPLETE, table, observed).astype(np.uint8)


def describe(table: np.ndarray, settings: MissingSettings, observed: np.ndarray) -> str:
    """Say in one line what a split lacks, really and by simulation, at the start of a run.

    Args:
        table: States, (samples,).
        settings: What the table was drawn from.
        observed: States of the same samples before anything was simulated, (samples,).
    """
    complete, no_text, no_image = counts(table)
    _, never_text, never_image = counts(observed)
    simulated = no_text + no_image - never_text - never_image
    note = (
        f"; really without text {never_text}, without image {never_image}; simulated {simulated} "
        f"of the other {len(table) - never_text - never_image}"
    )
    return (
        f"{settings.split}: {complete} complete, {no_text} without text, {no_image} without image"
        f" (missing {settings.missing_type} at {settings.ratio}{note * bool(observed.any())})"
    )


def table_hash(table: np.ndarray) -> str:
    """Return the SHA-256 (hex) over one byte per row: equal hashes mean equal masks."""
    return hashlib.sha256(np.asarray(table, dtype=np.uint8).tobytes()).hexdigest()
