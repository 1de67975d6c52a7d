"""Run every command and Python snippet of the pages on tiny data: `make docs-check`.

Commands run as they are written, in page order, in a temporary folder that holds what the pages
speak of. Settings that a command of run.py does not name are tiny ones, so that it takes a second.
"""

import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Loaded once: the commands are forks of this process, and each would import for seconds.
import clip.cli.commands
import clip.experiments
import clip.inference  # noqa: F401
from clip.demo import write_raw
from tests import raw_data, tiny
from tests.docs import pages as docs
from tests.own_data import shapes, write_manifest

SIZES = {"train": 24, "dev": 12, "test": 12}
DEMO = "result/demo_0"  # what `make demo` leaves behind
SMALL = {"num_workers": "0", "batch_size": "8", "per_gpu_batchsize": "4", "max_epoch": "1",
         "val_check_interval": "1.0", "prompt_length": str(tiny.LENGTH),
         "prompt_depth": str(tiny.DEPTH), "vit": "tiny_clip", "pretrain": None}  # fmt: skip
ONE_RUN = 'only=["task=mmimdb","rate=70","missing=both","method=DCP"]'


def smaller(words: list[str]) -> list[str]:
    """Put tiny settings in front of those that a command of run.py gives."""
    if "with" not in words:
        return words
    start = words.index("with") + 1
    given = {word.partition("=")[0].partition(".")[0] for word in words[start:]}
    if "per_gpu_batchsize" in given:
        given |= {"batch_size"}
    added = [f"{key}={value}" for key, value in SMALL.items() if value and key not in given]
    if "pretrain" in words[:start]:
        added += ["pretrain.layers=1", "pretrain.epochs=1"]
    if "reproduce" in words[:start] and "only" not in given:
        added += [ONE_RUN]
    return [*words[:start], *added, *words[start:]]


def forked(action: Callable[[], None], folder: Path, log: Path) -> int:
    """Do something in a process of its own in a folder; gives its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.chdir(folder)
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        action()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        print(ended.code or "", file=sys.stderr)
    except BaseException:  # noqa: BLE001  the child ends here, whatever it was
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def program(words: list[str]) -> Callable[[], None]:
    """Give what a command of run.py does, as a new Python would do it."""

    def act() -> None:
        sys.argv = smaller(words)
        runpy.run_path(words[0], run_name="__main__")

    return act


def run(command: docs.Command, folder: Path, log: Path) -> int:
    """Run one command as it is written; gives its exit code."""
    words = command.words
    if words[:2] == ["python", "run.py"]:
        return forked(program(words[1:]), folder, log)
    with log.open("wb") as out:
        return subprocess.call(["bash", "-c", command.text], cwd=folder, stdout=out, stderr=out)


def prepare(folder: Path) -> None:
    """Make all that the pages speak of: the project, raw data, arrow files, a CLIP, a run."""
    for path in docs.ROOT.iterdir():
        if path.name not in (".git", "result", "datasets"):
            (folder / path.name).symlink_to(path)
    write_raw(folder / "raw/mmimdb", SIZES)
    raw_data.food101(folder / "raw/food101", SIZES)
    raw_data.hateful_memes(folder / "raw/hateful_memes", SIZES)
    counts = {split: 15 for split in SIZES}
    write_manifest(folder / "mine/list.csv", shapes(folder / "mine", counts))
    raw_data.draw(folder / "poster.jpg", 3, size=(90, 120))
    tiny.write_clip(folder / "tiny_clip")
    for name in ("mmimdb", "food101", "hateful_memes"):
        must(f"python make_arrow.py --dataset {name} --root raw/{name} --target datasets", folder)
    table = folder / "datasets/mmimdb/mmimdb_splittest_missing_both_0.7.pt"
    table.parent.mkdir()
    torch.save(torch.zeros(SIZES["test"]), table)
    must(f"python run.py with task_finetune_mmimdb data_root=datasets log_dir={DEMO} "
         "exp_name=demo_dcp", folder)  # fmt: skip
    (folder / DEMO / "raw").symlink_to(folder / "raw/mmimdb")


def must(line: str, folder: Path) -> None:
    """Run a command that is not of the pages.

    Raises:
        RuntimeError: it failed.
    """
    log = folder / "log.txt"
    if run(docs.Command("", line), folder, log):
        raise RuntimeError(f"{line}\n{log.read_text()}")


@contextmanager
def timed(text: str) -> Iterator[list[int]]:
    """Print how something of the pages went: the codes that are put into the list."""
    start, codes = time.monotonic(), []
    yield codes
    print(f"{'FAILED' if any(codes) else 'ok':6} {time.monotonic() - start:5.1f} s  {text}")


def check_page(page: Path, folder: Path) -> int:
    """Run what stands on a page; gives the number of failures."""
    name, log, failures = docs.name_of(page), folder / "log.txt", 0
    actions = [(command.text.replace("\n", " "), lambda c=command: run(c, folder, log))
               for command in docs.commands(page) if not command.excuse]  # fmt: skip
    actions += [(f"snippet: {code.splitlines()[0]}", lambda c=code: snippet(c, name, folder, log))
                for code in docs.snippets(page)]  # fmt: skip
    for text, act in actions:
        with timed(f"{name}: {text}") as codes:
            codes.append(act())
        if codes[0]:
            failures += 1
            print(log.read_text(errors="replace")[-3000:], flush=True)
    return failures


def snippet(code: str, name: str, folder: Path, log: Path) -> int:
    """Run Python code of a page; gives its exit code."""
    # A class of the pages asks its module for its own name.
    return forked(lambda: exec(compile(code, name, "exec"), {"__name__": "__main__"}), folder, log)


def main() -> None:
    """Check the pages that are named, else all; the README first, whose runs others take."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    wanted = {"README.md", *sys.argv[1:]}
    named = [page for page in docs.PAGES if not sys.argv[1:] or docs.name_of(page) in wanted]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        failures = sum(check_page(page, folder) for page in named)
    sys.exit(f"{failures} failed" if failures else None)


if __name__ == "__main__":
    main()
