"""Run every command and Python snippet of the pages on tiny data: `make docs-check`.

Commands run as they are written, in the order of the pages, in a temporary folder with the files that the pages name.
Settings that a command of run.py does not set get tiny values.
"""

import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

# Imported once: the commands are forks of this process, and each import takes seconds.
import clip.cli.commands
import clip.experiments.runner
import clip.inference.predict  # noqa: F401
from clip.demo.films import write_raw
from tests import raw_data, tiny
from tests.docs import pages
from tests.own_data import shapes, write_manifest

SIZES = {"train": 24, "dev": 12, "test": 12}
DEMO = "result/demo_0"  # what `make demo` writes
TINY = {
    "num_workers": 0,
    "batch_size": 8,
    "per_gpu_batchsize": 4,
    "max_epoch": 1,
    "val_check_interval": 1.0,
    "prompt_length": tiny.LENGTH,
    "prompt_depth": tiny.DEPTH,
    "vit": "tiny_clip",
    "pretrain.layers": 1,
    "pretrain.epochs": 1,
    "reproduce.only": "['task=mmimdb','rate=70','missing=both','method=DCP']",
}


def add_tiny_settings(words: list[str]) -> list[str]:
    """Insert tiny settings before those of a command of run.py."""
    if "with" not in words or "costs" in words:
        return words
    start = words.index("with") + 1
    given = {word.partition("=")[0] for word in words[start:]}
    if "per_gpu_batchsize" in given:  # it must divide the default batch size
        given.add("batch_size")
    if "reproduce.experiment=mine/compare.yaml" in words:  # an experiment of four runs
        given.add("reproduce.only")
    return [*words[:start], *(f"{key}={value}" for key, value in TINY.items() if key not in given), *words[start:]]


def fork(action: Callable[[], None], folder: Path, log: Path) -> int:
    """Run a function in a process of its own in a folder and return its exit code."""
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
    except BaseException:  # noqa: BLE001  the process ends here
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def run_command(command: pages.Command, folder: Path, log: Path) -> int:
    """Run one command as it is written and return its exit code."""
    words = command.words
    if words[:2] != ["python", "run.py"]:
        with log.open("wb") as out:
            return subprocess.call(["bash", "-c", command.text], cwd=folder, stdout=out, stderr=out)

    def run_program() -> None:
        sys.argv = add_tiny_settings(words[1:])
        runpy.run_path(words[1], run_name="__main__")

    return fork(run_program, folder, log)


def run_snippet(code: str, folder: Path, log: Path) -> int:
    """Run Python code of a page and return its exit code."""
    # The classes of a snippet look up the module that they are defined in.
    return fork(lambda: exec(compile(code, "snippet", "exec"), {"__name__": "__main__"}), folder, log)


def prepare(folder: Path) -> None:
    """Create what the pages name: the project, raw data, arrow files, a CLIP, a run."""
    for path in pages.ROOT.iterdir():
        if path.name not in (".git", "result", "datasets"):
            (folder / path.name).symlink_to(path)
    write_raw(folder / "raw/mmimdb", SIZES)
    raw_data.food101(folder / "raw/food101", SIZES)
    raw_data.hateful_memes(folder / "raw/hateful_memes", SIZES)
    write_manifest(folder / "mine/list.csv", shapes(folder / "mine", dict.fromkeys(SIZES, 15)))
    (folder / "mine/compare.yaml").write_text(pages.snippets(pages.ROOT / "docs/reproduce.md", "yaml")[0])
    raw_data.draw(folder / "poster.jpg", 3, size=(90, 120))
    tiny.write_clip(folder / "tiny_clip")
    lines = [
        f"python make_arrow.py --dataset {name} --root raw/{name} --target datasets"
        for name in ("mmimdb", "food101", "hateful_memes")
    ]
    lines += [f"python run.py with task_finetune_mmimdb data_root=datasets log_dir={DEMO} exp_name=demo_dcp"]
    for line in lines:
        if run_command(pages.Command("", line), folder, folder / "log.txt"):
            raise RuntimeError(f"{line}\n{(folder / 'log.txt').read_text()}")
    mask = folder / "datasets/mmimdb/mmimdb_splittest_missing_both_0.7.pt"
    mask.parent.mkdir()
    torch.save(torch.zeros(SIZES["test"]), mask)
    (folder / DEMO / "raw").symlink_to(folder / "raw/mmimdb")


def check_page(page: Path, folder: Path) -> int:
    """Run the commands and snippets of a page and return the number of failures."""
    log, failures = folder / "log.txt", 0
    steps = [(command.text, run_command, command) for command in pages.commands(page) if not command.reason_not_run]
    steps += [(f"snippet: {code.splitlines()[0]}", run_snippet, code) for code in pages.snippets(page)]
    for text, function, argument in steps:
        start, code = time.monotonic(), function(argument, folder, log)
        outcome = "FAILED" if code else "ok"
        print(f"{outcome:6} {time.monotonic() - start:5.1f} s  {pages.name_of(page)}: {text}", flush=True)
        if code:
            failures += 1
            print(log.read_text(errors="replace")[-3000:], flush=True)
    return failures


def main() -> None:
    """Check the pages that are named, else all; always the README, whose runs other pages use."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    names = {"README.md", *sys.argv[1:]}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        chosen = [page for page in pages.PAGES if not sys.argv[1:] or pages.name_of(page) in names]
        failures = sum(check_page(page, Path(name)) for page in chosen)
    sys.exit(f"{failures} failed" if failures else None)


if __name__ == "__main__":
    main()
