"""Hostile files for every reader: how many inputs, refusals, crashes and hangs, and what memory.

    python -m benchmarks.fuzz
    python -m benchmarks.fuzz --seconds 5 --readers "rows to predict" manifest
    python -m benchmarks.fuzz --readers manifest --input 123

A reader must refuse a file in one line, or read it; all else is a crash. Each reader works in a
process of its own, which is replaced when it dies or stands still. ``--input`` reads one input
again and shows what becomes of it.
"""

import argparse
import itertools
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

STILL = 20  # seconds without an answer that count as a hang
LIMIT = 6 * 2**30  # bytes that a process may have, so that a blow-up spares the machine
START = 300  # seconds to start in, and to make an input
MOST_DEATHS = 100
MIB = 2**20
SHOWN = 10


def attacked(name: str, folder: Path) -> Any:
    """Give a reader and its good files, which it has read."""
    from benchmarks.hostile.readers import READERS

    reader = READERS[name](folder)
    good = {path: path.read_bytes() for path in reader.targets}
    for path in good:
        reader.read(path)  # a good file is read, else nothing is tested
    return reader, good


def inputs(name: str, good: dict[Path, bytes], marker: Path) -> Iterator[tuple[bool, Path, bytes]]:
    """Yield the classics, and then for ever what chance makes: whether it is one, path, bytes."""
    from benchmarks.hostile.attacks import attacks
    from benchmarks.hostile.inputs import mutated

    for path, data in good.items():
        yield from ((True, path, content) for content in attacks(path.name, data, marker))
    for number in itertools.count():
        rng = Random(f"{name}/{number}")
        path = rng.choice(list(good))
        others = [data for other, data in good.items() if other.suffix == path.suffix]
        yield False, path, mutated(path.name, good[path], others, rng)


def peak() -> int:
    """Give the most bytes that this process has held since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Let the kernel measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def attack(name: str, folder: Path, first: int, only: int | None) -> None:
    """Read inputs for ever, and print a line of JSON for each."""
    from benchmarks.hostile.readers import REFUSALS

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    marker = folder / "this ran"
    reader, good = attacked(name, folder)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    for number, (is_classic, path, content) in enumerate(inputs(name, good, marker)):
        if number < first or (only is not None and number != only):
            continue
        print("reading", file=out, flush=True)
        path.write_bytes(content)
        del content
        forget_peak()
        before, start, words = peak(), time.perf_counter(), ""
        try:
            reader.read(path)
            outcome = "accepted"
        except REFUSALS as error:
            outcome = "refused" if "\n" not in str(error) else "crash"
            words = "" if outcome == "refused" else str(error)
        except BaseException as error:  # noqa: BLE001  this is what is looked for
            outcome, words = "crash", f"{type(error).__name__}: {error}"
            if only is not None:
                raise
        if marker.exists():
            outcome, words = "ran code", path.name
            marker.rmdir()
        took, mib = time.perf_counter() - start, (peak() - before) / MIB
        line = [is_classic, number, outcome, took, mib, path.name, words[:300]]
        print(json.dumps(line), file=out, flush=True)
        path.write_bytes(good[path])
        if only is not None:
            return


class Child:
    """A process that reads inputs, watched from outside."""

    def __init__(self, name: str, folder: Path, first: int):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "benchmarks.fuzz", "--readers", name, "--child",
                   str(folder), "--first", str(first)]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.rest = b""

    def found(self) -> list[Any] | str:
        """Give what became of the next input, "hang" or "died"."""
        if (words := self._line(START)) == "reading":
            words = self._line(STILL)
        return words if words in ("hang", "died") else json.loads(words)

    def _line(self, patience: float) -> str:
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], patience)[0]:
                return "hang"
            block = os.read(self.process.stdout.fileno(), 65_536)
            if not block:
                return "died"
            self.rest += block
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    def end(self) -> int:
        """Kill it, and give what it ended with."""
        self.process.kill()
        return self.process.wait()


def watch(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Attack a reader: all classics, and for some seconds what chance makes."""
    outcomes: Counter[str] = Counter()
    slowest, worst, first, faults, end = 0.0, 0.0, 0, [], None
    child = Child(name, folder, 0)
    while end is None or time.perf_counter() < end:
        found = child.found()
        if isinstance(found, str):
            outcomes["hang" if found == "hang" else "crash"] += 1
            faults.append(f"input {first}: {found}, {child.end()}")
            if len(faults) > MOST_DEATHS:
                raise SystemExit(f"{name}: {faults[-1]}, again and again")
            first += 1
            child = Child(name, folder, first)
            continue
        is_classic, number, outcome, took, mib, file, words = found
        if not is_classic and end is None:
            end = time.perf_counter() + seconds
        first = number + 1
        outcomes[outcome] += 1
        slowest, worst = max(slowest, took), max(worst, mib)
        if outcome in ("crash", "ran code"):
            faults.append(f"input {number} ({file}): {words}")
    child.end()
    kinds = ("refused", "accepted", "crash", "hang", "ran code")
    return {"reader": name, "inputs": outcomes.total(), **{kind: outcomes[kind] for kind in kinds},
            "slowest, seconds": round(slowest, 2), "worst MiB": round(worst),
            "faults": faults}  # fmt: skip


def main() -> None:
    """Attack, print and write results/fuzz.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="for each reader")
    parser.add_argument("--readers", nargs="*", help="some of them (default: all)")
    parser.add_argument("--input", type=int, help="read this one again, with its traceback")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        attack(args.readers[0], args.child, args.first, None)
    with tempfile.TemporaryDirectory() as temporary:
        if args.input is not None:
            attack(args.readers[0], Path(temporary), 0, args.input)
            return
        from benchmarks import machine
        from benchmarks.hostile.readers import READERS

        rows = []
        for name in args.readers or READERS:
            rows.append(watch(name, Path(temporary) / "files", args.seconds))
            print(json.dumps({k: v for k, v in rows[-1].items() if k != "faults"}), flush=True)
            print(*rows[-1]["faults"][:SHOWN], sep="\n", flush=True)
        if not args.readers:
            machine.write("fuzz", rows)


if __name__ == "__main__":
    main()
