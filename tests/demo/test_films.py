"""The stand-in data: deterministic, no leaks, evidence divided between poster and plot."""

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from clip.demo import write_raw
from clip.demo.films import GENRES, Film, sample_film
from clip.demo.plots import CUES, P_MENTION, tell_plot
from clip.demo.posters import HEIGHT, WIDTH

SIZES = {"train": 240, "dev": 80, "test": 80}
FEW = {"train": 6, "dev": 2, "test": 2}
FILMS = 4000


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_raw(root, SIZES, seed=0)
    return root


@pytest.fixture(scope="module")
def films() -> list[Film]:
    rng = Random(0)
    return [sample_film(rng) for _ in range(FILMS)]


def read_split(root: Path) -> dict[str, list[str]]:
    return json.loads((root / "split.json").read_text())


def read_label(root: Path, film_id: str) -> dict:
    return json.loads((root / "labels" / f"{film_id}.json").read_text())


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write_raw(tmp_path / name, FEW, seed)
    assert files(tmp_path / "one") == files(tmp_path / "same")
    shared = files(tmp_path / "one").items() & files(tmp_path / "other").items()
    assert not shared


def test_layout_is_mm_imdbs(raw):
    split = read_split(raw)
    ids = sum(split.values(), [])
    assert {name: len(members) for name, members in split.items()} == SIZES
    assert all(re.fullmatch(r"\d{7}", film_id) for film_id in ids)
    assert sorted(p.name for p in (raw / "images").iterdir()) == sorted(f"{i}.jpeg" for i in ids)
    assert sorted(p.name for p in (raw / "labels").iterdir()) == sorted(f"{i}.json" for i in ids)
    for film_id in ids:
        label = read_label(raw, film_id)
        assert set(label) == {"title", "genres", "plot"}
        assert 1 <= len(set(label["genres"])) == len(label["genres"]) <= 3
        assert 1 <= len(label["plot"]) <= 2
        assert all(10 <= len(plot.split()) <= 60 for plot in label["plot"])
    with Image.open(raw / "images" / f"{ids[0]}.jpeg") as poster:
        assert (poster.format, poster.mode, poster.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))


def test_no_id_plot_or_poster_occurs_twice(raw):
    ids = sum(read_split(raw).values(), [])
    plots = [plot for film_id in ids for plot in read_label(raw, film_id)["plot"]]
    posters = [(raw / "images" / f"{film_id}.jpeg").read_bytes() for film_id in ids]
    for values in (ids, plots, posters):
        assert max(Counter(values).values()) == 1


def test_ids_tell_neither_split_nor_genre(raw):
    split = read_split(raw)
    numbers = [int(film_id) for members in split.values() for film_id in members]
    is_test = [film_id in split["test"] for members in split.values() for film_id in members]
    is_drama = ["Drama" in read_label(raw, f"{number:07d}")["genres"] for number in numbers]
    for label in (is_test, is_drama):
        inside = [n for n, yes in zip(numbers, label, strict=True) if yes]
        outside = [n for n, yes in zip(numbers, label, strict=True) if not yes]
        wins = sum(a > b for a in inside for b in outside) / len(inside) / len(outside)
        assert wins == pytest.approx(0.5, abs=0.12)  # the area under the ROC curve of the number


def test_every_genre_occurs_in_every_split(raw):
    for members in read_split(raw).values():
        genres = {genre for film_id in members for genre in read_label(raw, film_id)["genres"]}
        assert genres == set(GENRES)


@pytest.mark.parametrize("genre", GENRES)
def test_poster_and_plot_hold_partly_different_evidence(films, genre):
    having = [film for film in films if genre in film.genres]
    only_shown = sum(genre in set(film.shown) - set(film.told) for film in having)
    only_told = sum(genre in set(film.told) - set(film.shown) for film in having)
    both = sum(genre in set(film.told) & set(film.shown) for film in having)
    assert min(only_shown, only_told, both) > 0.12 * len(having)
    assert only_shown + only_told + both > 0.93 * len(having)


def test_decoys_are_few(films):
    for hints in ("shown", "told"):
        wrong = sum(len(set(getattr(film, hints)) - set(film.genres)) for film in films)
        assert 0.09 < wrong / FILMS < 0.15


def test_plot_has_cues_of_the_told_genres_and_of_no_other(films):
    rng = Random(0)
    for film in films[:500]:
        plot = tell_plot(film, rng)
        cued = {g for g, kinds in CUES.items() if any(c in plot for c in " | ".join(kinds).split(" | "))}
        assert cued == set(film.told)


def test_plot_shares_the_scene_with_the_poster(films):
    rng = Random(0)
    named = sum(film.colour in tell_plot(film, rng).split() for film in films[:500])
    assert named / 500 == pytest.approx(P_MENTION, abs=0.06)
