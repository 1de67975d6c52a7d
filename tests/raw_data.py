"""Tiny raw data sets in the three layouts of DATA.md; every image and text is distinct."""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

SPLITS = {"train": 4, "dev": 2, "test": 3}
FOODS = ("apple_pie", "hot_dog")


def draw(path: Path, shade: int, mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> None:
    """Saves a small image of one colour in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, 40, 200)).convert(mode).save(path)


def write_json(path: Path, content: Any) -> None:
    """Saves JSON, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _numbers(rows: dict[str, int]) -> dict[str, range]:
    stops = list(accumulate(rows.values()))
    return {s: range(stop - n, stop) for (s, n), stop in zip(rows.items(), stops, strict=True)}


def mmimdb(root: Path, rows: dict[str, int] = SPLITS) -> Path:
    """Movies with one plot, or two where the id is odd."""
    splits = {}
    for split, numbers in _numbers(rows).items():
        splits[split] = [f"{number:07d}" for number in numbers]
        for number, name in zip(numbers, splits[split], strict=True):
            plots = [f"A plot of {name}.", f"Another plot of {name}."][: 1 + number % 2]
            genres = ["Drama", "Film-Noir"] if number % 2 else ["Sport"]
            write_json(root / "labels" / f"{name}.json", {"plot": plots, "genres": genres})
            draw(root / "images" / f"{name}.jpeg", number)
    write_json(root / "split.json", splits)
    return root


def food101(root: Path, rows: dict[str, int] = SPLITS) -> Path:
    """Dishes of two classes whose indices are not alphabetical, with text.json."""
    splits, texts = {}, {}
    for split, numbers in _numbers(rows).items():
        split = {"dev": "val"}.get(split, split)
        foods = {f"{FOODS[n % 2]}_{n}.jpg": FOODS[n % 2] for n in numbers}
        splits[split] = list(foods)
        for number, (name, food) in zip(numbers, foods.items(), strict=True):
            texts[name] = f"How to make {food}, part {number}"
            folder = "test" if split == "test" else "train"
            draw(root / "images" / folder / food / name, number)
    write_json(root / "split.json", splits)
    write_json(root / "text.json", texts)
    write_json(root / "class_idx.json", {food: 1 - i for i, food in enumerate(FOODS)})
    return root


def hateful_memes(root: Path, rows: dict[str, int] = SPLITS) -> Path:
    """Memes with alternating labels."""
    for split, numbers in _numbers(rows).items():
        memes = [{"id": n, "img": f"img/{n:05d}.png", "label": n % 2} for n in numbers]
        for meme in memes:
            meme["text"] = f"words of meme {meme['id']}"
            draw(root / meme["img"], meme["id"])
        write_lines(root / f"{split}.jsonl", memes)
    return root


def write_lines(path: Path, rows: list[Any]) -> None:
    """Saves one JSON value a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
