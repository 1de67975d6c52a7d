"""The worker processes of make_arrow.py: same files, a bounded lead, a clean end in any case."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import raw_data
from tests.converter import ROOT, command, convert
from tests.raw_data import draw
from vilt.utils.image_pool import CALLS_AHEAD, ROWS_PER_CALL, ImagePool
from vilt.utils.raw import PendingRow, Skip

WAIT = 20.0
SIZES = {"train": 40, "dev": 2, "test": 3}


def until(condition: Callable[[], object]) -> object:
    """Waits for a condition and returns what it gives."""
    end = time.monotonic() + WAIT
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def workers(parent: int) -> set[int]:
    """The living worker processes that a process has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, mother = stat.read_text().rpartition(")")[2].split()[:2]
            started = b"spawn_main" in (stat.parent / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if started and int(mother) == parent and state != "Z":
            found.add(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2][1] != "Z"
    except OSError:
        return False


def opened(pipe: Path) -> int | None:
    """The writing end of a named pipe, once somebody reads from it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, set[int], Path]]:
    """A run that waits for one image in the middle of a split; its workers; its target."""
    root, target = raw_data.mmimdb(tmp_path / "raw", SIZES), tmp_path / "out"
    target.mkdir()
    (target / "mmimdb_train.arrow").write_bytes(b"the earlier file")
    pipe = root / "images/0000022.jpeg"
    pipe.unlink()
    os.mkfifo(pipe)
    python, _, *arguments = command("mmimdb", root, target, "--num_workers", 2)
    run = subprocess.Popen(
        [python, "-m", "tests.slow_disk", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that ctrl-C can be sent to all its processes, as a shell does
        # A shell's background jobs ignore ctrl-C, and so would the run if the tests are such a job.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    writing_end = until(lambda: opened(pipe))
    yield run, workers(run.pid), target
    os.close(writing_end)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_no_part_and_no_process(waiting: tuple, stop: signal.Signals) -> None:
    run, own, target = waiting
    assert len(own) == 2
    assert list(target.glob(".mmimdb_train.arrow.*.part"))
    if stop == signal.SIGINT:
        os.killpg(run.pid, stop)
    else:
        run.send_signal(stop)
    _, errors = run.communicate(timeout=WAIT)
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
    assert b"Traceback" not in errors
    assert not any(map(alive, own))
    assert [path.name for path in target.iterdir()] == ["mmimdb_train.arrow"]
    assert (target / "mmimdb_train.arrow").read_bytes() == b"the earlier file"


def test_a_killed_run_takes_its_workers_along(waiting: tuple) -> None:
    run, own, _ = waiting
    run.kill()
    until(lambda: not any(map(alive, own)))


def test_a_worker_that_dies_ends_the_run_in_one_line(waiting: tuple) -> None:
    run, own, target = waiting
    os.kill(own.pop(), signal.SIGSEGV)
    _, errors = run.communicate(timeout=WAIT)
    assert run.returncode == 1
    message = errors.decode().rpartition("\r")[2]
    assert message.startswith("error: ")
    assert "0000022.jpeg" in message
    assert message.count("\n") == 1
    assert [path.name for path in target.iterdir()] == ["mmimdb_train.arrow"]


def test_workers_and_the_main_process_write_the_same_files(tmp_path: Path) -> None:
    root = raw_data.mmimdb(tmp_path / "raw", SIZES)
    (root / "images/0000003.jpeg").write_bytes(b"")
    (root / "labels/0000007.json").unlink()
    reports = [convert("mmimdb", root, tmp_path / str(n), "--num_workers", n) for n in (0, 1, 3)]
    reports = [report.partition("next: ")[0] for report in reports]  # behind it is the name of the folder
    assert "image is empty: 1 (0000003.jpeg)" in reports[0]
    assert "no label file: 1 (0000007)" in reports[0]
    assert reports[0] == reports[1] == reports[2]
    for split in SIZES:
        name = f"mmimdb_{split}.arrow"
        files = [(tmp_path / str(n) / name).read_bytes() for n in (0, 1, 3)]
        assert files[0] == files[1] == files[2]


def test_rows_are_read_a_little_ahead_only(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    taken = []

    def rows() -> Iterator[PendingRow]:
        for number in range(200):
            taken.append(number)
            yield PendingRow(tmp_path, "a.png", {"number": number})

    with ImagePool(num_workers=2) as pool:
        ahead = [len(taken) - item["number"] for item in pool.items(rows())]
    assert len(ahead) == 200
    assert 1 < max(ahead) <= 2 * CALLS_AHEAD * ROWS_PER_CALL


def test_an_error_in_a_worker_reaches_the_main_process(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ImagePool(num_workers=1) as pool:
        list(pool.items([Skip("no plot", "0"), PendingRow(tmp_path, 7, {})]))


def test_a_worker_imports_no_large_package() -> None:
    """A worker imports make_arrow.py and what it reads with; the memory counts once a worker."""
    code = "import make_arrow, sys; print({'torch', 'pyarrow', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def waits_at(pipe: Path, image: Image.Image) -> np.ndarray:
    """Pixels of an image; those of a square one never come."""
    return np.asarray(pipe.open("rb").read() if image.width == image.height else image)


def test_a_pool_that_is_left_early_ends_its_workers(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "slow.png", 1, size=(5, 5))
    os.mkfifo(tmp_path / "pipe")
    names = ["a.png"] * ROWS_PER_CALL + ["slow.png"] * (ROWS_PER_CALL * CALLS_AHEAD)
    with ImagePool(partial(waits_at, tmp_path / "pipe"), num_workers=1) as pool:
        next(pool.items(PendingRow(tmp_path, name, {}) for name in names))
        assert workers(os.getpid())
    until(lambda: not workers(os.getpid()))
