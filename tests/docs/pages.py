"""What README.md, DATA.md and docs/ promise: commands, snippets, links, files and settings.

`docs_check.py` runs the commands; `test_docs.py` asks the rest, which is cheap.
"""

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "DATA.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that are read but not run -> why. A command of the pages must run or be one of these.
NOT_RUN = {
    "make demo": "minutes of training; its steps are commands of these pages",
    "make test": "it runs the tests of which this is one",
    "make docs-check": "it would run itself",
    "python make_arrow.py --download*": "gigabytes from the network; tests/vilt/test_download.py",
    "python run.py serve *": "runs until Ctrl-C; tests/inference/test_serve.py",
    "python run.py reproduce * launcher=slurm *": "needs SLURM; tests/experiments/test_reproduce_faults.py",
    "python run.py reproduce with experiment=experiments/study/*": "dozens of runs",
    "torchrun *": "several machines; tests/engine/test_ddp.py has two processes",
    "#!/bin/bash*": "needs SLURM",
}
PROGRAMS = "python|make|torchrun|source|pip|git|export|sbatch|srun|sh|bash|tar|curl|ssh|cd|mkdir"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S* )*(?:{PROGRAMS})(?: |$)")
FENCE = re.compile(r"```(\w*)\n(.*?)\n```\n", re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Command(NamedTuple):
    """A command of a page.

    Attributes:
        page: its name.
        text: one line, or a whole script that begins with ``#!``.
    """

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words that a shell makes of it."""
        return shlex.split(self.text, comments=True)

    @property
    def excuse(self) -> str | None:
        """Why it is not run; None: it is."""
        plain = " ".join(self.words) if not self.text.startswith("#!") else self.text
        return next((why for known, why in NOT_RUN.items() if fnmatch(plain, known)), None)


def name_of(page: Path) -> str:
    """Name a page as its readers do."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Give (language, text) of the fenced blocks and ("", text) of the indented ones."""
    text = page.read_text(encoding="utf-8") + "\n"
    yield from FENCE.findall(text)
    for block in INDENTED.findall(FENCE.sub("", text)):
        for part in re.split(r"\n\s*\n", block.strip("\n")):
            yield "", "\n".join(line[4:] for line in part.splitlines())


def commands(page: Path) -> Iterator[Command]:
    """Give the commands of a page in its order.

    Raises:
        ValueError: a block has commands and something else; that would not be run.
    """
    for language, text in blocks(page):
        if language not in ("", "sh", "bash", "shell", "console"):
            continue
        if text.startswith("#!"):
            yield Command(name_of(page), text)
            continue
        lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
        known = [bool(COMMAND.match(line.strip())) for line in lines]
        if any(known) and not all(known):
            raise ValueError(f"{name_of(page)}: no command: {lines[known.index(False)]}")
        yield from (Command(name_of(page), line.strip()) for line in lines if all(known))


def snippets(page: Path) -> Iterator[str]:
    """Give the Python code of a page."""
    return (text for language, text in blocks(page) if language == "python")


def prose(page: Path) -> str:
    """Give the text outside of blocks."""
    text = FENCE.sub("", page.read_text(encoding="utf-8") + "\n")
    return INDENTED.sub("", text)


def spans(page: Path) -> list[str]:
    """Give what stands in backticks outside of blocks."""
    return SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """Give the targets of a page's links."""
    return LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Give the names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
