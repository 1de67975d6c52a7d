"""Posters of the stand-in collection, drawn with Pillow: a scene, and a symbol for every genre."""

import math
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from clip.demo.films import Film
from clip.demo.symbols import BYSTANDERS, PALETTES, SYMBOLS, Shape, shapes

WIDTH, HEIGHT, SCALE = 96, 144, 2  # drawn at twice the final size
HALO = 0.62  # radius of the disc behind a symbol, in symbol sizes
GRAIN = 4  # pixel noise, uniform within plus or minus GRAIN
INK, PAPER, SHADOW = "#1a1626", "#fbf3e4", "#10101840"

# Centres and size of the symbols in final pixels, by how many genres are shown (none: a bystander).
# All lie inside CLIP's centre crop, y from 24 to 120.
LAYOUTS = (
    ((48, 90),),
    ((48, 66),),
    ((31, 54), (65, 78)),
    ((28, 49), (69, 55), (46, 90)),
    ((28, 48), (69, 46), (29, 86), (68, 87)),
)
SIZES = (42, 56, 44, 38, 34)

SKIES = {  # top, horizon, brightness of the land
    "dawn": ("#6f8fc9", "#f9c9b6", 0.8),
    "noon": ("#4aa3e0", "#d4eefa", 1.0),
    "dusk": ("#4b3672", "#f58b4c", 0.6),
    "night": ("#0b1030", "#34477f", 0.35),
}
LANDS = {  # ground, number of teeth, height, unevenness, one tooth (x, height in percent)
    "sea": ("#2f6f9f", 5, 0.2, 0.04, "0 88 20 90 50 100 80 90 100 88"),
    "mountain": ("#7d7f92", 3, 0.42, 0.4, "0 20 50 100 100 20"),
    "forest": ("#2e6b47", 10, 0.32, 0.4, "0 10 50 100 100 10"),
    "city": ("#6b6470", 6, 0.45, 0.5, "0 0 0 100 90 100 90 0"),
    "desert": ("#cf9a56", 2, 0.25, 0.2, "0 40 25 78 50 100 75 78 100 40"),
    "village": ("#a5694c", 4, 0.3, 0.3, "0 35 8 35 8 60 47 100 86 60 86 35 100 35"),
}
HALOS = {
    "Drama": "#1f3f8f",
    "Comedy": "#ff9d2e",
    "Romance": "#ffd0dc",
    "Thriller": "#3a3a3a",
    "Horror": "#7a0f1a",
    "Sci-Fi": "#103c46",
    "Western": "#e8c48a",
    "War": "#d9d2b0",
    "Music": "#46206e",
}
FLAKES = {"clear": 0, "rain": 30, "snow": 40, "fog": 0}
FRAMES = {
    "red": "#d7263d",
    "green": "#2f9e44",
    "blue": "#2b6cf0",
    "yellow": "#f5d21f",
    "white": "#f6f4ee",
    "violet": "#8e44c8",
}


def draw_poster(film: Film, rng: Random) -> Image.Image:
    """Draw the scene and a symbol for each genre in `film.shown`: RGB, WIDTH x HEIGHT."""
    poster = _sky(film.time)
    draw = ImageDraw.Draw(poster, "RGBA")
    _draw_lights(draw, film, rng)
    _draw_land(draw, film, rng)
    if film.weather == "fog":
        _draw_fog(draw, rng)
    _draw_symbols(draw, film, rng)
    for _ in range(FLAKES[film.weather]):
        _draw_flake(draw, film.weather, rng)
    _draw_frame(draw, film, rng)
    return _print(poster.reduce(SCALE), rng)


def _sky(time: str) -> Image.Image:
    top, horizon = (np.array(ImageColor.getrgb(colour)) for colour in SKIES[time][:2])
    depth = np.linspace(0, 1, HEIGHT * SCALE)[:, None]
    column = top * (1 - depth) + horizon * depth  # (rows, 3)
    image = Image.fromarray(column[:, None].astype(np.uint8))
    return image.resize((WIDTH * SCALE, HEIGHT * SCALE), Image.Resampling.NEAREST)


def _draw_lights(draw: ImageDraw.ImageDraw, film: Film, rng: Random) -> None:
    """Draw the sun or moon of a clear sky, with stars around the moon."""
    if film.weather != "clear":
        return
    night = film.time == "night"
    for _ in range(45 * night):
        draw.circle(_spot(rng), rng.choice((0.5, 1)), fill=PAPER)
    sun = rng.uniform(15, 80) * SCALE, rng.uniform(30, 46) * SCALE
    colour = PAPER if night else "#fff1b8"
    draw.circle(sun, 12 * SCALE, fill=f"{colour}50")
    draw.circle(sun, 8 * SCALE, fill=colour)


def _draw_land(draw: ImageDraw.ImageDraw, film: Film, rng: Random) -> None:
    """Draw a far and a near ridge, each a row of teeth of uneven height."""
    ground, teeth, height, unevenness, tooth = LANDS[film.place]
    profile = np.array(tooth.split(), float).reshape(-1, 2) / 100
    for nearness, shade in ((0, 1.15), (1, 0.75)):
        offset, outline = rng.random(), []
        for index in range(-1, teeth + 1):
            tall = height * (1 - 0.45 * nearness) * (1 - rng.uniform(0, unevenness))
            outline += [((index + offset + x) / teeth, 0.86 - tall * y) for x, y in profile]
        outline += [(1, 1), (0, 1)]
        corners = np.array(outline) * (WIDTH * SCALE, HEIGHT * SCALE)
        draw.polygon(corners.ravel().tolist(), fill=_shade(ground, SKIES[film.time][2] * shade))


def _draw_symbols(draw: ImageDraw.ImageDraw, film: Film, rng: Random) -> None:
    symbols = [(rng.choice(SYMBOLS[name]), PALETTES[name], HALOS[name]) for name in film.shown]
    symbols = symbols or [(rng.choice(BYSTANDERS), f"{FRAMES[film.colour]} {PAPER}", None)]
    centres = rng.sample(LAYOUTS[len(film.shown)], len(symbols))
    for (symbol, palette, halo), (x, y) in zip(symbols, centres, strict=True):
        size = SIZES[len(film.shown)] * SCALE * rng.uniform(0.85, 1.1)
        centre = (x + rng.gauss(0, 3)) * SCALE, (y + rng.gauss(0, 3)) * SCALE
        outlines = _place(shapes(symbol), size, centre, turn=math.radians(rng.gauss(0, 8)))
        a, b = (_shade(colour, rng.uniform(0.85, 1.15)) for colour in palette.split())
        tones = {"a": a, "b": b, "k": INK, "w": PAPER}
        if halo:
            draw.circle(centre, HALO * size, fill=halo)
        for _, outline in outlines:
            draw.polygon((outline + 1.5 * SCALE).ravel().tolist(), fill=SHADOW)
        for tone, outline in outlines:
            draw.polygon(outline.ravel().tolist(), fill=tones[tone])


def _place(symbol: list[Shape], size: float, centre: tuple[float, float], turn: float) -> list[Shape]:
    rotation = [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    return [(tone, size * corners @ rotation + centre) for tone, corners in symbol]


def _draw_fog(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    for _ in range(10):
        x, y = _spot(rng)
        wide, y = rng.uniform(30, 50) * SCALE, 70 * SCALE + y / 3
        draw.ellipse((x - wide, y - wide / 6, x + wide, y + wide / 6), fill="#e9ecf04c")


def _draw_flake(draw: ImageDraw.ImageDraw, weather: str, rng: Random) -> None:
    x, y = _spot(rng)
    if weather == "rain":
        draw.line((x, y, x - 4 * SCALE, y + 10 * SCALE), fill="#dce8f8b0", width=1)
    else:
        draw.circle((x, y), rng.uniform(0.6, 1.3) * SCALE, fill="white")


def _draw_frame(draw: ImageDraw.ImageDraw, film: Film, rng: Random) -> None:
    right, bottom, band = WIDTH * SCALE, HEIGHT * SCALE, 18 * SCALE
    colour = FRAMES[film.colour]
    draw.rectangle((0, 0, right - 1, bottom - 1), outline=colour, width=4 * SCALE)
    top = rng.choice((0, bottom - band))
    draw.rectangle((0, top, right, top + band), fill=colour)
    ink = INK if film.colour in ("yellow", "white") else PAPER
    font = _font(min(10, 140 / len(film.title)) * SCALE)
    draw.text((right / 2, top + band / 2), film.title.upper(), fill=ink, font=font, anchor="mm")


def _print(poster: Image.Image, rng: Random) -> Image.Image:
    """Vary the exposure and add paper grain."""
    noise = np.frombuffer(rng.randbytes(WIDTH * HEIGHT), np.int8).reshape(HEIGHT, WIDTH, 1)
    pixels = np.asarray(poster) * rng.uniform(0.92, 1.05) + noise * (GRAIN / 128)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _spot(rng: Random) -> tuple[float, float]:
    return rng.uniform(0, WIDTH) * SCALE, rng.uniform(0, HEIGHT) * SCALE


def _shade(colour: str, light: float) -> tuple[int, ...]:
    return tuple(min(255, round(value * light)) for value in ImageColor.getrgb(colour))


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
