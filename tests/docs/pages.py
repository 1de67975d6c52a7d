"""The commands, snippets, links, files and settings of README.md, DATA.md and docs/."""

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "DATA.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that check.py does not run -> reason; every other command of the pages is run.
NOT_RUN = {
    "make *": "setup, demo and test take minutes; the steps of the demo are commands of these pages",
    "source *": "the environment exists",
    "python make_arrow.py --download*": "gigabytes from the network; tests/vilt/test_download.py",
    "python run.py serve *": "runs until Ctrl-C; tests/inference/test_serve.py",
    "python run.py reproduce * reproduce.launcher=slurm *": "needs SLURM; tests/experiments/test_reproduce.py",
    "python run.py reproduce with reproduce.experiment=experiments/study/*": "dozens of runs",
    "python run.py reproduce with reproduce.experiment=?'experiments/study/*": "dozens of runs",
    "python make_arrow.py --dataset manifest --root fashion/*": "the data are not part of the project",
    "python run.py pretrain * pretrain.target=clip_products": "the data are not part of the project",
    "PYTHONPATH=* python run.py with * prompt_type=fading *": "a method of the page only; tests/cli/test_plugins.py",
    "torchrun *": "several machines; tests/engine/test_ddp.py runs two processes",
    "#!/bin/bash*": "needs SLURM",
}
COMMAND = re.compile(r"(?:[A-Z_]+=\S* )*(?:python|make|torchrun|source|pip)(?: |$)")
FENCE = re.compile(r"```(\w*)\n(.*?)\n```\n", re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")


class Command(NamedTuple):
    """A command of a page: one line, or a whole script that starts with ``#!``."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words that a shell makes of it."""
        return shlex.split(self.text, comments=True)

    @property
    def reason_not_run(self) -> str | None:
        """Why it is not run; None if it is."""
        plain = self.text if self.text.startswith("#!") else " ".join(self.words)
        return next((reason for pattern, reason in NOT_RUN.items() if fnmatch(plain, pattern)), None)


def name_of(page: Path) -> str:
    """Return the path of a page below the project's root."""
    return str(page.relative_to(ROOT))


def _blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of fenced blocks and ("", text) of indented ones."""
    text = page.read_text(encoding="utf-8") + "\n"
    yield from FENCE.findall(text)
    for block in INDENTED.findall(FENCE.sub("", text)):
        for part in re.split(r"\n\s*\n", block.strip("\n")):
            yield "", "\n".join(line[4:] for line in part.splitlines())


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page in order.

    Raises:
        ValueError: a block has commands and other lines, which would not be run.
    """
    for language, text in _blocks(page):
        if language:
            continue
        if text.startswith("#!"):
            yield Command(name_of(page), text)
            continue
        lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
        known = [bool(COMMAND.match(line)) for line in lines]
        if any(known) and not all(known):
            raise ValueError(f"{name_of(page)}: not a command: {lines[known.index(False)]}")
        yield from (Command(name_of(page), line) for line in lines if all(known))


def snippets(page: Path, language: str = "python") -> list[str]:
    """Return the code of a page in one language."""
    return [text for fence, text in _blocks(page) if fence == language]


def prose(page: Path) -> str:
    """Return the text outside of blocks."""
    return INDENTED.sub("", FENCE.sub("", page.read_text(encoding="utf-8") + "\n"))


def spans(page: Path) -> list[str]:
    """Return the text between backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
