"""An invented film collection in MM-IMDb's raw layout, for running everything without a download.

A film's genre shows in the poster, in the plot, in both or (rarely) in neither, and each of the two
may hint at a genre the film does not have: neither alone suffices. Time, weather, place and colour
are shared by poster and plot whatever the genre, as extra ground for contrastive training.
"""

import json
from pathlib import Path
from random import Random

from clip.demo.films import Film, sample_film
from clip.demo.plots import tell_plot
from clip.demo.posters import draw_poster

SIZES = {"train": 2800, "dev": 400, "test": 800}
P_SECOND_PLOT = 0.15


def write_raw(root: Path, sizes: dict[str, int] = SIZES, seed: int = 0) -> None:
    """Write `images/`, `labels/` and `split.json` under `root`; equal seeds give equal bytes.

    Args:
        root: folder to create.
        sizes: number of films per split; every film is drawn the same way.
        seed: seeds everything: films, posters, plots and ids.
    """
    rng = Random(seed)
    ids = iter(rng.sample(range(10**7), sum(sizes.values())))
    split = {name: [f"{next(ids):07d}" for _ in range(size)] for name, size in sizes.items()}
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    told: set[str] = set()
    for film_id in (film_id for names in split.values() for film_id in names):
        _write_film(root, film_id, told, rng)
    (root / "split.json").write_text(json.dumps(split))


def _write_film(root: Path, film_id: str, told: set[str], rng: Random) -> None:
    film = sample_film(rng)
    plots = [_new_plot(film, told, rng) for _ in range(1 + (rng.random() < P_SECOND_PLOT))]
    label = {"title": film.title, "genres": list(film.genres), "plot": plots}
    (root / "labels" / f"{film_id}.json").write_text(json.dumps(label))
    draw_poster(film, rng).save(root / "images" / f"{film_id}.jpeg", quality=90)


def _new_plot(film: Film, told: set[str], rng: Random) -> str:
    """Tell the film until the plot is one that no earlier film has."""
    plot = tell_plot(film, rng)
    while plot in told:
        plot = tell_plot(film, rng)
    told.add(plot)
    return plot
