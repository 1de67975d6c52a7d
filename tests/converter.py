"""make_arrow.py as a subprocess: a run that must succeed, and one that must fail."""

import subprocess
import sys
from pathlib import Path

from tests import raw_data

ROOT = Path(__file__).parent.parent
BUILD = {
    "mmimdb": raw_data.mmimdb,
    "food101": raw_data.food101,
    "hateful_memes": raw_data.hateful_memes,
}


def command(dataset: str, root: Path, target: Path, *options: object) -> list[str]:
    args = ["--dataset", dataset, "--root", str(root), "--target", str(target)]
    return [sys.executable, "make_arrow.py", *args, *map(str, options)]


def convert(dataset: str, root: Path, target: Path, *options: object) -> str:
    """Runs the command line, which must succeed, and returns what it prints."""
    run = command(dataset, root, target, *options)
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuse(dataset: str, root: Path, target: Path, *options: object) -> str:
    """Runs the command line, which must fail in one line, and returns that line."""
    run = command(dataset, root, target, *options)
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(target.glob(".*.part"))
    return done.stderr
