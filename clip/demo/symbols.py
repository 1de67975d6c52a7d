"""What stands for a genre on a poster: two symbols each, made of a few flat shapes."""

import math
from functools import cache

import numpy as np

Shape = tuple[str, np.ndarray]  # tone, corners (n, 2)

# Two symbols a genre. A symbol is a list of shapes, each `tone kind numbers`: tone a or b (the
# genre's colours), k (ink) or w (paper); numbers in percent of the symbol's size, y pointing down.
SYMBOLS = {
    "Drama": (
        "k bar 0 -50 0 42 5, a arc 0 0 50 42 180 360, b arc 0 0 17 42 180 360, k bar 0 42 15 42 6",
        "k bar -32 48 32 48 8, w bar 0 46 0 0 24, a oval 0 -22 13 24, b oval 0 -17 6 13",
    ),
    "Comedy": (
        "a oval 0 0 46 46, k oval -18 -13 7 11, k oval 18 -13 7 11, b arc 0 8 31 28 0 180",
        "w bar -26 0 0 50 3, w bar 26 0 0 50 3, a oval -26 -8 21 27, b oval 26 -8 21 27, "
        "w bar 0 0 0 50 3, w oval 0 -22 21 27",
    ),
    "Romance": (
        "a oval -22 -16 26 26, a oval 22 -16 26 26, a poly -44 -3 0 -20 44 -3 0 50, b oval -24 -22 7 9",
        "k bar 0 0 2 50 5, k poly 2 44 24 16 10 44, k poly 2 44 -22 20 -6 44, a oval 0 -14 25 22, "
        "a poly -25 -14 -26 -48 -11 -30 0 -50 11 -30 26 -48 25 -14, b arc 0 -12 14 16 0 180",
    ),
    "Thriller": (
        "a ring 0 0 44 44, a ring 0 0 20 20, b bar -50 0 -14 0 5, b bar 14 0 50 0 5, "
        "b bar 0 -50 0 -14 5, b bar 0 14 0 50 5, a oval 0 0 5 5",
        "w poly -50 0 -26 -22 0 -30 26 -22 50 0 26 22 0 30 -26 22, a oval 0 0 24 24, k oval 0 0 12 12, w oval 8 -8 5 5",
    ),
    "Horror": (
        "w oval 0 -10 41 37, w poly -23 10 23 10 19 49 -19 49, k oval -17 -8 12 13, "
        "k oval 17 -8 12 13, k poly 0 9 6 20 -6 20, k bar -8 32 -8 49 3, k bar 8 32 8 49 3",
        "a poly -50 5 -42 -22 -12 -6 -9 -26 0 -16 9 -26 12 -6 42 -22 50 5 30 0 18 16 0 26 -18 16 "
        "-30 0, b oval -5 -8 3 3, b oval 5 -8 3 3",
    ),
    "Sci-Fi": (
        "a poly -32 42 -14 2 14 2 32 42, w poly -9 38 9 38 0 50, b oval 0 -6 17 44, "
        "k oval 0 -18 8 8, a bar -9 36 9 36 6",
        "b ring 0 0 50 17, a oval 0 0 28 28, b bar -24 9 24 9 4",
    ),
    "Western": (
        "a bar 0 -38 0 50 18, a oval 0 -38 9 9, a bar -32 -12 -32 16 13, a bar -38 12 0 12 13, "
        "a bar 30 -24 30 4 13, a bar 36 0 0 0 13",
        "b star 50 22, k ring 0 0 20 20, a oval 0 0 10 10",
    ),
    "War": (
        "k bar -46 30 46 30 24, b oval -46 30 12 12, b oval 46 30 12 12, "
        "a poly -48 18 -36 2 40 2 48 18, a poly -22 2 -16 -18 16 -18 22 2, a bar 16 -10 50 -16 6",
        "a bar -50 -8 50 -8 17, a oval 0 -4 10 46, a bar -20 38 20 38 9, w oval -34 -8 6 6, w oval 34 -8 6 6",
    ),
    "Music": (
        "a bar -20 -40 -20 34 6, a bar 36 -46 36 26 6, a bar -22 -36 38 -42 15, "
        "a oval -32 34 15 11, a oval 24 26 15 11, b oval -34 31 5 4",
        "k oval 0 0 46 46, b ring 0 0 36 36, k ring 0 0 33 33, a oval 0 0 17 17, w oval 0 0 4 4",
    ),
}
BYSTANDERS = (  # for a poster that shows no genre: a walker with a scarf, a signpost
    "k oval 0 -36 11 12, k poly -12 -22 12 -22 20 22 -20 22, k bar -8 20 -8 50 9, "
    "k bar 8 20 8 50 9, a bar -11 -20 11 -20 10, a bar 9 -20 16 6 8",
    "k bar 0 -46 0 50 6, a poly -4 -40 34 -40 46 -29 34 -18 -4 -18, b poly 4 -10 -32 -10 -44 0 -32 10 4 10",
)
PALETTES = {
    "Drama": "#4f86d9 #b9d3f7",
    "Comedy": "#ffc926 #f2673a",
    "Romance": "#e8375d #ffb3c4",
    "Thriller": "#ff5a1f #ffe9c9",
    "Horror": "#a3163a #9cf27a",
    "Sci-Fi": "#23c9c4 #d9f7ff",
    "Western": "#3f9b45 #e8b93c",
    "War": "#8fa04d #5d6a38",
    "Music": "#8d4fd1 #f0c7ff",
}


@cache
def shapes(symbol: str) -> list[Shape]:
    """Turn a line of the table into shapes around the origin, of size 1."""
    parsed = (shape.split() for shape in symbol.split(", "))
    return [(tone, OUTLINES[kind](*map(float, numbers)) / 100) for tone, kind, *numbers in parsed]


def _poly(*xy: float) -> np.ndarray:
    return np.array(xy).reshape(-1, 2)


def _oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return _arc(x, y, rx, ry, 0, 360)


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> np.ndarray:
    angles = np.radians(np.linspace(start, end, 25))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def _ring(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return np.concatenate([_oval(x, y, rx, ry), _oval(x, y, 0.8 * rx, 0.8 * ry)[::-1]])


def _bar(x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
    side = np.array([y0 - y1, x1 - x0]) * width / 2 / math.hypot(x1 - x0, y1 - y0)
    ends = np.array([[x0, y0], [x1, y1]])
    return np.concatenate([ends + side, ends[::-1] - side])


def _star(outer: float, inner: float) -> np.ndarray:
    angles = np.pi * np.arange(10) / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, inner, outer)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


OUTLINES = {"poly": _poly, "oval": _oval, "arc": _arc, "ring": _ring, "bar": _bar, "star": _star}
