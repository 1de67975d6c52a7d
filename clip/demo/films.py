"""Generate synthetic films in MM-IMDb's raw layout, to run the pipeline without a download.

A film's genre shows in the poster, in the plot, in both or (rarely) in neither, and each of the two may hint at a
genre that the film does not have: neither modality alone suffices. Poster and plot also share a scene (time, place,
color) that is independent of the genres, so that contrastive pretraining cannot rely on genres alone.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZES = {"train": 2800, "dev": 400, "test": 800}
NUM_GENRES = {1: 35, 2: 40, 3: 25}  # genres of a film -> relative frequency
# Where a genre shows -> probability.
EVIDENCE = {("poster",): 0.18, ("plot",): 0.18, ("poster", "plot"): 0.61, (): 0.03}
P_WRONG_HINT = 0.12  # a wrong genre is hinted at, drawn for poster and plot separately
P_MENTION = 0.3  # a plot mentions time, place or color, drawn for each separately

WIDTH, HEIGHT = 96, 144  # pixels of a poster; CLIP's center crop keeps y from 24 to 120
LAYOUTS = (  # number of symbols -> their centers and radius in pixels, all inside the center crop
    ((), 0),
    (((48, 66),), 24),
    (((30, 54), (66, 78)), 20),
    (((28, 49), (68, 54), (46, 90)), 18),
    (((28, 48), (68, 47), (29, 87), (68, 88)), 17),
)
GRAIN = 6  # pixel noise, uniform in [-GRAIN, GRAIN]


@dataclass(frozen=True)
class Genre:
    """One genre; its symbol is a star on a disc."""

    weight: int  # relative frequency
    shape: tuple[int, float]  # number of points of the star, and its inner radius relative to the outer one
    color: str  # of the disc
    cues: str  # phrases of a plot that hint at it, separated by "|"


GENRES = {
    "Drama": Genre(26, (4, 0.71), "#3f6fd8", "an estranged father|a grieving widow|a custody hearing|an old shame"),
    "Comedy": Genre(20, (24, 1.0), "#ffc926", "a bumbling butler|a tactless aunt|a runaway llama|a silly bet"),
    "Romance": Genre(15, (3, 0.5), "#ff6f9c", "a shy florist|a jilted bride|a first kiss|unsigned love letters"),
    "Thriller": Genre(13, (4, 0.25), "#ff5a1f", "a hired assassin|a key witness|a missing dossier|a ransom call"),
    "Horror": Genre(11, (12, 0.5), "#b00f2e", "a possessed child|an exorcist|an ancient curse|a haunted nursery"),
    "Sci-Fi": Genre(10, (8, 0.6), "#23d4cc", "a stranded astronaut|a rogue android|a wormhole|a colony on Mars"),
    "Western": Genre(8, (5, 0.4), "#7a3f10", "a tired gunslinger|a sheriff|a silver mine|the cattle rustlers"),
    "War": Genre(8, (2, 0.35), "#5f7a14", "a young conscript|an army medic|the trenches|an order to retreat"),
    "Music": Genre(9, (3, 0.2), "#8d4fd1", "a faded singer|a punk drummer|a broken guitar|a record deal"),
}
NEUTRAL_CUES = "a young teacher|a retired postman|a student|a clerk|a promise|a long visit|an old photograph|a new job"

# The scene: value -> what the poster draws, and phrases for the plot.
TIMES = {  # color of the sky
    "dawn": ("#f2d8cf", "At first light|Early one morning"),
    "noon": ("#cfe3f2", "At midday|Over a long lunch hour"),
    "dusk": ("#8d8396", "At sunset|As the day ends"),
    "night": ("#23263a", "After midnight|Late at night"),
}
PLACES = {  # color of the ground, number and height of its hills
    "sea": ("#7a93a8", 0, 0.0, "by the sea|on the coast"),
    "mountains": ("#a3a3a8", 2, 0.4, "in the mountains|below a high pass"),
    "forest": ("#5c7566", 8, 0.2, "deep in the forest|among the pines"),
    "desert": ("#cbbb9f", 2, 0.1, "in the desert|among the dunes"),
}
COLORS = {  # of the frame, and of an object in the plot
    "red": "#c61f35",
    "green": "#37b34f",
    "blue": "#2b5cf0",
    "yellow": "#f0dc3c",
    "white": "#f6f4ee",
    "black": "#16121c",
}
OBJECTS = "coat|suitcase|bicycle|door|kite|boat"
NAMES = "Ada|Bruno|Clara|Dan|Edith|Felix|Greta|Hugo|Iris|Jonas|Kaya|Leo|Mina|Nils|Olga|Paul|Rosa|Sven|Tilda|Uwe"


@dataclass(frozen=True)
class Film:
    """One film, with the scene that its poster and plot show: keys of ``TIMES``, ``PLACES`` and ``COLORS``."""

    genres: list[str]
    hints: dict[str, list[str]]  # "poster" and "plot" -> genres hinted at, true and wrong ones
    time: str
    place: str
    color: str


def write_raw(root: Path, sizes: dict[str, int] = SIZES, seed: int = 0) -> None:
    """Write films in MM-IMDb's raw layout, ``sizes`` of each split; equal seeds give equal bytes."""
    rng = Random(seed)
    ids = iter(rng.sample(range(10**7), sum(sizes.values())))
    split = {name: [f"{next(ids):07d}" for _ in range(size)] for name, size in sizes.items()}
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for film_id in sum(split.values(), []):
        film = sample_film(rng)
        label = {"title": f"Film {film_id}", "genres": film.genres, "plot": [write_plot(film, rng)]}
        (root / "labels" / f"{film_id}.json").write_text(json.dumps(label))
        draw_poster(film, rng).save(root / "images" / f"{film_id}.jpeg", quality=90)
    (root / "split.json").write_text(json.dumps(split))


def sample_film(rng: Random) -> Film:
    """Draw the genres of a film, where each of them shows, and the scene."""
    genres: list[str] = []
    for _ in range(_choose(NUM_GENRES, rng)):
        genres.append(_choose({name: genre.weight for name, genre in GENRES.items() if name not in genres}, rng))
    hints: dict[str, list[str]] = {"poster": [], "plot": []}
    for genre in genres:
        for modality in _choose(EVIDENCE, rng):
            hints[modality].append(genre)
    for names in hints.values():
        if rng.random() < P_WRONG_HINT:
            names.append(rng.choice([name for name in GENRES if name not in genres]))
    return Film(genres, hints, *(rng.choice(list(values)) for values in (TIMES, PLACES, COLORS)))


def write_plot(film: Film, rng: Random) -> str:
    """Write the plot of a film: two cues for each genre hinted at (one if there are many) and parts of the scene."""
    hints = film.hints["plot"]
    cues = [cue for name in hints for cue in rng.sample(GENRES[name].cues.split("|"), 2 if len(hints) < 3 else 1)]
    cues = cues or rng.sample(NEUTRAL_CUES.split("|"), 2)
    rng.shuffle(cues)
    name = rng.choice(NAMES.split("|"))
    time, place, thing = (
        rng.choice(phrases.split("|")) if rng.random() < P_MENTION else ""
        for phrases in (TIMES[film.time][-1], PLACES[film.place][-1], OBJECTS)
    )
    opening = " ".join(filter(None, (time and f"{time},", f"{name} meets {cues[0]} and {cues[1]}", place)))
    sentences = [opening, *(f"It all turns on {cue}" for cue in cues[2:])]
    sentences += [f"{name} carries a {film.color} {thing}"] if thing else []
    return " ".join(f"{sentence}." for sentence in sentences)


def draw_poster(film: Film, rng: Random) -> Image.Image:
    """Draw the poster of a film, (WIDTH, HEIGHT) RGB: the scene, and a symbol for each genre it hints at."""
    poster = Image.new("RGB", (WIDTH, HEIGHT), TIMES[film.time][0])
    draw = ImageDraw.Draw(poster)
    ground, hills, height, _ = PLACES[film.place]
    shift, steps = rng.random(), np.linspace(0, 1, 49)
    ridge = HEIGHT * (0.68 - height * np.abs(np.sin(math.pi * (hills * steps + shift))) * (hills > 0))
    draw.polygon([*zip(WIDTH * steps, ridge, strict=True), (WIDTH, HEIGHT), (0, HEIGHT)], fill=ground)
    draw.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=COLORS[film.color], width=7)
    centers, radius = LAYOUTS[len(film.hints["poster"])]
    for name, (x, y) in zip(film.hints["poster"], rng.sample(centers, len(centers)), strict=True):
        size, center = radius * rng.uniform(0.85, 1.1), (x + rng.gauss(0, 2), y + rng.gauss(0, 2))
        symbol = _star(*GENRES[name].shape, 0.7 * size, center, turn=rng.gauss(0, 0.15))
        draw.circle(center, size, fill=GENRES[name].color)
        draw.polygon(symbol, fill="#fbf3e4")
    noise = np.frombuffer(rng.randbytes(WIDTH * HEIGHT), np.int8).reshape(HEIGHT, WIDTH, 1)
    pixels = np.asarray(poster) * rng.uniform(0.9, 1.05) + noise * (GRAIN / 128)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _star(points: int, inner: float, radius: float, center: Sequence[float], turn: float) -> list[tuple[float, float]]:
    """Return the corners of a star; with an inner radius of cos(pi / points) it is a regular polygon."""
    angles = np.arange(2 * points) * math.pi / points - math.pi / 2 + turn
    radii = radius * np.where(np.arange(2 * points) % 2, inner, 1.0)
    return list(zip(center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles), strict=True))


def _choose(weights: dict[Any, float], rng: Random) -> Any:
    return rng.choices(list(weights), list(weights.values()))[0]
