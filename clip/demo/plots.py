"""Plots of the stand-in collection: a small grammar with cues for every genre."""

from random import Random

from clip.demo.films import Film

P_MENTION = 0.4  # each of time, weather, place and colour is named in the plot
P_SECOND_CUE = 0.4  # a genre that is told is told twice
P_NEIGHBOUR = 0.25  # a second person enters although no cue needs one

# Per genre: who, does what, about what. NOBODY fills the grammar where no genre has a cue.
NOBODY = (
    "a young teacher | a retired postman | a student | a newcomer | a clerk",
    "comes home after ten years | rents a small room | looks for work | misses the last train",
    "a promise | a long-awaited visit | an old photograph | a change of plans",
)
CUES = {
    "Drama": (
        "an estranged father | a grieving widow | a worn-out nurse | a laid-off welder",
        "cares for a dying parent | hides an old shame | resents a brother | seeks a divorce",
        "a custody hearing | the family farm | a guilty secret | a funeral nobody attends",
    ),
    "Comedy": (
        "a hapless plumber | a bumbling butler | a would-be magician | a tactless aunt",
        "is mistaken for the mayor | drops the wedding cake | poses as a chef | wrecks a limousine",
        "a runaway llama | a silly bet | the worst dinner party ever | a prank gone too far",
    ),
    "Romance": (
        "a shy florist | a lonely baker | a jilted bride | a charming stranger",
        "falls in love by mistake | writes unsigned love letters | proposes too early | elopes",
        "a first kiss | a broken engagement | a blind date | a summer sweetheart",
    ),
    "Thriller": (
        "a disgraced agent | a blackmailed banker | a key witness | a hired assassin",
        "uncovers a conspiracy | is framed for treason | races to stop a bomber | taps a phone",
        "a missing dossier | a ransom call | a staged suicide | the double agent's list",
    ),
    "Horror": (
        "a sleepless medium | a possessed child | an exorcist | a masked killer",
        "hears scratching in the walls | wakes an ancient curse | opens a coffin | feeds on blood",
        "a haunted nursery | a doll that whispers | a seance | the thing in the cellar",
    ),
    "Sci-Fi": (
        "a stranded astronaut | a rogue android | a time traveller | a cloned pilot",
        "decodes a signal from space | repairs a starship | befriends an alien | leaves cryosleep",
        "a wormhole | a colony on Mars | an uprising of robots | a dying sun",
    ),
    "Western": (
        "a tired gunslinger | a widowed rancher | a stagecoach driver | a sheriff",
        "rides after cattle rustlers | duels with a bandit | guards a gold wagon | tames a mustang",
        "a silver mine | a stolen horse | a saloon brawl | the last outlaw",
    ),
    "War": (
        "a young conscript | an army medic | a captured gunner | a resistance courier",
        "crosses the front line | deserts the regiment | defends a bridge | leads a platoon home",
        "an order to retreat | a hill full of mines | the trenches | a ceasefire",
    ),
    "Music": (
        "a faded singer | a street violinist | a deaf composer | a punk drummer",
        "joins a touring band | writes one last song | plays a sold-out concert | tunes a piano",
        "a lost recording | a broken guitar | a record deal | the choir's solo",
    ),
}
TIME_WORDS = {
    "dawn": "At first light | Early one morning | Just after sunrise",
    "noon": "At midday | One bright noon | Over a long lunch hour",
    "dusk": "At sunset | One evening | As the day ends",
    "night": "After midnight | One moonlit night | Late at night",
}
PLACE_WORDS = {
    "sea": "by the sea | in a fishing port | on the coast",
    "mountain": "in the mountains | below a high pass | on a steep slope",
    "forest": "deep in the forest | among the pines | in the woods",
    "city": "in the big city | between tower blocks | downtown",
    "desert": "in the desert | among the dunes | on a sandy plain",
    "village": "in a village | on a village square | in a small parish",
}
WEATHER_WORDS = {
    "clear": "The air is clear | There is not a cloud in sight",
    "rain": "Rain drums on every roof | It has been pouring for days",
    "snow": "Snow covers the ground | Thick snowflakes keep falling",
    "fog": "Fog swallows the road | A grey mist will not lift",
}
OBJECTS = "coat | suitcase | bicycle | door | kite | boat | car | lantern"
FATES = "goes missing | is found | has been left behind | stands waiting | changes hands"
FIRST = "Ada|Bruno|Clara|Dan|Edith|Felix|Greta|Hugo|Iris|Jonas|Kaya|Leo|Mina|Nils|Olga|Paul"
LAST = "Abel|Brandt|Costa|Dunn|Ekman|Ford|Garcia|Holm|Ito|Jansen|Khan|Lund|Moreau|Novak|Okafor"
SECONDS = "Soon {who} {does} | Meanwhile {who} {does} | Then {who} arrives and {does} | Next door, {who} {does}"
LAST_WORDS = (
    "It all comes down to {} | At the heart of it is {} | Nobody had reckoned with {} | "
    "Only {} stands in the way | Everyone talks about {}"
)


def tell_plot(film: Film, rng: Random) -> str:
    """Write two to four sentences with one or two cues for each genre in `film.told`."""
    who, does, what = cues = _sample_cues(film.told, rng)
    opening = _opening(film, _take(cues, 0, rng), _take(cues, 1, rng), rng)
    sentences = [opening, _surroundings(film, rng)]
    if who or does or rng.random() < P_NEIGHBOUR:
        second = _pick(SECONDS, rng)
        sentences.append(second.format(who=_take(cues, 0, rng), does=_take(cues, 1, rng)))
    subject = " and ".join(what) or _take(cues, 2, rng)
    sentences.append(_pick(LAST_WORDS, rng).format(subject))
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _sample_cues(told: tuple[str, ...], rng: Random) -> list[list[str]]:
    """Spread the cues of the told genres over who, does and what, two of each at most."""
    cues: list[list[str]] = [[], [], []]
    for name in told:
        twice = len(told) <= 2 and rng.random() < P_SECOND_CUE
        emptiest = sorted(range(3), key=lambda kind: (len(cues[kind]), rng.random()))
        for kind in emptiest[: 1 + twice]:
            cues[kind].append(_pick(CUES[name][kind], rng))
    return cues


def _take(cues: list[list[str]], kind: int, rng: Random) -> str:
    return cues[kind].pop() if cues[kind] else _pick(NOBODY[kind], rng)


def _opening(film: Film, who: str, does: str, rng: Random) -> str:
    name = f"{rng.choice(FIRST.split('|'))} {rng.choice(LAST.split('|'))}"
    place = _mention(PLACE_WORDS[film.place], rng)
    time = _mention(TIME_WORDS[film.time], rng)
    if not time:
        return " ".join(filter(None, (f"{name}, {who}, {does}", place)))
    return " ".join(filter(None, (time, place))) + f", {who} named {name} {does}"


def _surroundings(film: Film, rng: Random) -> str:
    weather = _mention(WEATHER_WORDS[film.weather], rng)
    thing = f"a {film.colour} {_pick(OBJECTS, rng)} {_pick(FATES, rng)}"
    colour = _mention(thing, rng)
    sentence = " and ".join(filter(None, (weather, colour)))
    return sentence[:1].upper() + sentence[1:]


def _mention(alternatives: str, rng: Random) -> str:
    return _pick(alternatives, rng) if rng.random() < P_MENTION else ""


def _pick(alternatives: str, rng: Random) -> str:
    return rng.choice(alternatives.split(" | "))
