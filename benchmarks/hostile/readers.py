"""Every reader of files from elsewhere."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.hostile.data import (
    arrow_files,
    checked_data,
    contact_sheets,
    converted_images,
    downloaded_arrows,
    food101,
    foreign_tables,
    manifest,
    memes,
    mmimdb,
    predicted_images,
    sources,
)
from benchmarks.hostile.files import Reader
from benchmarks.hostile.models import beside, checkpoints, experiments, requests, weights
from clip.utils.errors import UserError
from vilt.utils.raw import BadImage, RawDataError

REFUSALS = (UserError, RawDataError, BadImage)
READERS: dict[str, Callable[[Path], Reader]] = {
    "MM-IMDb, raw": mmimdb,
    "Food-101, raw": food101,
    "Hateful Memes, raw": memes,
    "manifest": manifest,
    "image, converted": converted_images,
    "image, predicted": predicted_images,
    "arrow, trained on": arrow_files,
    "arrow, checked": checked_data,
    "arrow, as a picture": contact_sheets,
    "arrow, downloaded": downloaded_arrows,
    "missing table of others": foreign_tables,
    "weights": weights,
    "beside the weights": beside,
    "checkpoint": checkpoints,
    "rows to predict": sources,
    "request to the page": requests,
    "experiment": experiments,
}
