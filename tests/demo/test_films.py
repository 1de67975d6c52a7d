"""The generated films: deterministic, in MM-IMDb's layout, with evidence divided between poster and plot."""

import json
import re
from collections import Counter
from random import Random

import pytest
from PIL import Image

from clip.demo.films import COLORS, GENRES, HEIGHT, P_MENTION, P_WRONG_HINT, WIDTH, sample_film, write_plot, write_raw

SIZES = {"train": 240, "dev": 80, "test": 80}
NUM_FILMS = 4000


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_raw(root, SIZES, seed=0)
    return root


@pytest.fixture(scope="module")
def films():
    rng = Random(0)
    return [sample_film(rng) for _ in range(NUM_FILMS)]


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write_raw(tmp_path / name, {"train": 6, "dev": 2, "test": 2}, seed)
    assert files(tmp_path / "one") == files(tmp_path / "same")
    assert not files(tmp_path / "one").items() & files(tmp_path / "other").items()


def test_layout_is_that_of_mm_imdb_and_no_id_or_poster_occurs_twice(raw):
    split = json.loads((raw / "split.json").read_text())
    assert {name: len(ids) for name, ids in split.items()} == SIZES
    ids = sum(split.values(), [])
    assert all(re.fullmatch(r"\d{7}", film_id) for film_id in ids)
    assert sorted(p.name for p in (raw / "images").iterdir()) == sorted(f"{i}.jpeg" for i in ids)
    labels = {i: json.loads((raw / "labels" / f"{i}.json").read_text()) for i in ids}
    for label in labels.values():
        assert set(label) == {"title", "genres", "plot"}
        assert 1 <= len(set(label["genres"])) == len(label["genres"]) <= 3
        assert all(5 <= len(plot.split()) <= 60 for plot in label["plot"])
    for members in split.values():
        assert {genre for i in members for genre in labels[i]["genres"]} == set(GENRES)
    with Image.open(raw / "images" / f"{ids[0]}.jpeg") as poster:
        assert (poster.format, poster.mode, poster.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))
    posters = [(raw / "images" / f"{i}.jpeg").read_bytes() for i in ids]
    for values in (ids, posters):
        assert max(Counter(values).values()) == 1


@pytest.mark.parametrize("genre", GENRES)
def test_each_modality_alone_misses_genres(films, genre):
    shown = [(genre in film.hints["poster"], genre in film.hints["plot"]) for film in films if genre in film.genres]
    share = {where: count / len(shown) for where, count in Counter(shown).items()}
    assert share[True, False] > 0.12
    assert share[False, True] > 0.12
    assert share[True, True] > 0.45
    assert share[False, False] < 0.07


def test_wrong_hints_are_few(films):
    for modality in ("poster", "plot"):
        wrong = sum(len(set(film.hints[modality]) - set(film.genres)) for film in films)
        assert wrong / NUM_FILMS == pytest.approx(P_WRONG_HINT, abs=0.03)


def test_a_plot_has_cues_of_its_hints_and_shares_the_scene_with_the_poster(films):
    rng, colors = Random(0), 0
    for film in films[:500]:
        plot = write_plot(film, rng)
        cues = {name: genre.cues.lower().split("|") for name, genre in GENRES.items()}
        cued = {name for name in GENRES if any(cue in plot.lower() for cue in cues[name])}
        assert cued == set(film.hints["plot"])
        assert not any(f"a {color} " in plot for color in COLORS if color != film.color)
        colors += f"a {film.color} " in plot
    assert colors / 500 == pytest.approx(P_MENTION, abs=0.06)
