"""Convert Hateful Memes ({train,dev,test}.jsonl and img/) to arrow files."""

from pathlib import Path
from typing import Any

from clip.utils.errors import UserError
from clip.utils.files import parse_object
from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import PendingRow, require_paths

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
PUBLISHED = {"train": 8500, "dev": 500, "test": 1000}
CLASSES = ("not hateful", "hateful")


def make_arrow(root: Path, target: Path, pool: ImagePool | None = None) -> str:
    """Write hatememes_{train,dev,test}.arrow and return a summary table."""
    folder = root if (root / "train.jsonl").exists() else root / "data"
    if not folder.exists():
        raise UserError(f"{root} has neither train.jsonl nor data/train.jsonl; see DATA.md")
    require_paths(folder, *(f"{split}.jsonl" for split in PUBLISHED), "img")
    splits = {split: read_memes(folder / f"{split}.jsonl") for split in PUBLISHED}

    def pending_row(split: str, meme: dict[str, Any]) -> PendingRow:
        columns = {"text": [meme["text"]], "label": meme["label"], "image_id": meme["img"], "split": split}
        return PendingRow(folder, meme["img"], columns)

    schema = arrow.with_classes(SCHEMA, CLASSES, "binary")
    return arrow.convert(target, "hatememes_", schema, splits, pending_row, PUBLISHED, pool)


def read_memes(path: Path) -> list[dict[str, Any]]:
    """Read and validate the records of one split."""
    memes = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        meme = parse_object(line, place)
        if not all(isinstance(meme.get(key), str) for key in ("img", "text")):
            raise UserError(f"{place} needs the strings 'img' and 'text'; download the file again")
        if "label" not in meme:
            seen = path.with_name(f"{path.stem}_seen.jsonl")
            found = "exists" if seen.exists() else "is part of the complete public data set"
            raise UserError(f"{place} has no label; rename {seen.name}, which has labels and {found}, to {path.name}")
        if type(meme["label"]) is not int or meme["label"] not in (0, 1):
            raise UserError(f"{place} has the label {meme['label']!r:.60}; it must be 0 or 1")
        memes.append(meme)
    return memes
