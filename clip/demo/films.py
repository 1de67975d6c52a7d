"""Films of the stand-in collection: genres, where each leaves evidence, and the scene."""

from dataclasses import dataclass
from random import Random

GENRE_COUNTS = {1: 35, 2: 40, 3: 25}  # how many genres a film has: relative frequency
FRIENDS = ("Comedy Romance", "Drama Romance", "Drama War", "Horror Sci-Fi", "Horror Thriller")
FRIENDSHIP = 4  # factor on the weight of a genre that has a friend in the film
P_SILENT = 0.03  # a genre of the film leaves no evidence at all
P_DECOY = 0.12  # one wrong genre is hinted at, drawn for poster and plot separately


@dataclass(frozen=True)
class Evidence:
    """Frequency of a genre, and the chances that only poster or only plot gives it away."""

    weight: int
    only_shown: float
    only_told: float


GENRES = {
    "Drama": Evidence(26, only_shown=0.14, only_told=0.25),
    "Comedy": Evidence(20, only_shown=0.19, only_told=0.21),
    "Romance": Evidence(15, only_shown=0.20, only_told=0.19),
    "Thriller": Evidence(13, only_shown=0.16, only_told=0.24),
    "Horror": Evidence(11, only_shown=0.22, only_told=0.19),
    "Sci-Fi": Evidence(10, only_shown=0.23, only_told=0.18),
    "Western": Evidence(8, only_shown=0.23, only_told=0.19),
    "War": Evidence(8, only_shown=0.22, only_told=0.18),
    "Music": Evidence(9, only_shown=0.20, only_told=0.20),
}

# The scene: shared by poster and plot, drawn without looking at the genres.
TIMES = ("dawn", "noon", "dusk", "night")
WEATHERS = ("clear", "rain", "snow", "fog")
PLACES = ("sea", "mountain", "forest", "city", "desert", "village")
COLOURS = ("red", "green", "blue", "yellow", "white", "violet")

TITLE_HEADS = "The Paper|The Seventh|A Quiet|The Glass|My Other|The Long|An Open|Half the|No Such|Our"
TITLE_TAILS = "Letter|Window|Sunday|Answer|Orchard|Number|Corner|Ladder|Garden|Mirror|River|Key"


@dataclass(frozen=True)
class Film:
    """One film: its genres, what poster and plot hint at (also wrongly), and what both share."""

    genres: tuple[str, ...]
    shown: tuple[str, ...]
    told: tuple[str, ...]
    time: str
    weather: str
    place: str
    colour: str
    title: str


def sample_film(rng: Random) -> Film:
    """Draw a film: genres, then which of them poster and plot give away, then the scene."""
    genres = _sample_genres(rng)
    shown, told = _sample_evidence(genres, rng)
    scene = (rng.choice(values) for values in (TIMES, WEATHERS, PLACES, COLOURS))
    title = " ".join(rng.choice(words.split("|")) for words in (TITLE_HEADS, TITLE_TAILS))
    return Film(genres, shown, told, *scene, title=title)


def _sample_genres(rng: Random) -> tuple[str, ...]:
    genres: list[str] = []
    for _ in range(rng.choices(list(GENRE_COUNTS), list(GENRE_COUNTS.values()))[0]):
        weights = [_weight(name, genres) for name in GENRES]
        genres += rng.choices(list(GENRES), weights)
    return tuple(genres)


def _weight(name: str, chosen: list[str]) -> int:
    if name in chosen:
        return 0
    friendly = any({name, other} == set(pair.split()) for other in chosen for pair in FRIENDS)
    return GENRES[name].weight * (FRIENDSHIP if friendly else 1)


def _sample_evidence(genres: tuple[str, ...], rng: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    shown, told = [], []
    for name in genres:
        only_shown, only_told = GENRES[name].only_shown, GENRES[name].only_told
        weights = (only_shown, only_told, 1 - only_shown - only_told - P_SILENT, P_SILENT)
        in_poster, in_plot = rng.choices(((1, 0), (0, 1), (1, 1), (0, 0)), weights)[0]
        shown += [name] * in_poster
        told += [name] * in_plot
    for hints in (shown, told):
        if rng.random() < P_DECOY:
            hints.append(rng.choice([name for name in GENRES if name not in genres]))
    return tuple(shown), tuple(told)
