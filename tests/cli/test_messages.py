"""Every mistake is answered with one line that names the value and the fix, and loses nothing."""

import re
import shlex
import signal
import socket

import pytest
import torch

import make_arrow
import run
from tests.cli import messages, wrong_files
from tests.conftest import shell

EARLIER = b"the earlier file"
TRAINS_FIRST = "loss "  # this mistake shows only in training, which prints and writes a run


@pytest.fixture(scope="module")
def places(settings, arrow_folder, clip_folder, tmp_path_factory):
    """What the words of the rows stand for."""
    base = tmp_path_factory.mktemp("messages")
    run.command_line(["run.py", "with", "task_finetune_mmimdb", *settings, "max_epoch=1",
                      "learning_rate=0.02", f"log_dir={base}/runs"])  # fmt: skip
    (folder,) = (base / "runs").glob("*/version_0")
    (best,) = folder.glob("checkpoints/*-best.pt")
    wrong = wrong_files.write(base / "wrong", arrow_folder, clip_folder, best)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {"wrong": wrong, "arrow": arrow_folder, "run": folder, "best": best,
               "port": taken.getsockname()[1]}  # fmt: skip


def words_of(row, places, settings):
    """The whole command line, without the program."""
    given = shlex.split(row.words.format(**places))
    if row.command == "make_arrow.py":
        return ["--target", str(places["out"]), "--num_workers", "0", *given]
    defaults = [*settings, f"log_dir={places['out']}"]
    if row.command in ("predict", "serve"):
        defaults = ["num_gpus=0", f"predict.output={places['out']}/out.csv"]
    elif not any(word.startswith(("task_", "task=")) for word in given):
        given.insert(0, "task_finetune_mmimdb")
    if row.command == "reproduce":
        given.pop(0)
        defaults.append(f"reproduce.experiment={places['wrong']}/small.yaml")
    keys = {word.split("=")[0] for word in given}
    rest = [word for word in defaults if word.split("=")[0] not in keys]
    return [*row.command.split(), "with", *given, *rest]


def main_of(row):
    """The program's entry point."""
    if row.command == "make_arrow.py":
        return make_arrow.main
    return lambda words: run.command_line(["run.py", *words])


def state_of(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


def told(row, ended, capsys):
    """Exit code and stderr, as the interpreter gives them for a SystemExit."""
    said = capsys.readouterr().err
    if isinstance(ended.value.code, str):
        return 1, said + ended.value.code + "\n"
    return ended.value.code, said


@pytest.mark.filterwarnings("ignore:.*decompression bomb")
@pytest.mark.parametrize("row", messages.ROWS, ids=lambda row: f"{row.command} {row.words}"[:60])
def test_a_mistake_is_one_line_and_loses_nothing(row, places, settings, tmp_path, capsys):
    (tmp_path / "mmimdb_dev.arrow").write_bytes(EARLIER)
    words = words_of(row, places | {"out": tmp_path}, settings)
    before = state_of(places["wrong"], places["run"], tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main_of(row)(words)
    signal.signal(signal.SIGTERM, handler)
    code, said = told(row, ended, capsys)
    assert re.fullmatch(r"error: [^\n]+\n", said), said
    assert re.search(row.pattern, said), said
    assert code == row.code
    if TRAINS_FIRST not in row.pattern:
        assert state_of(places["wrong"], places["run"], tmp_path) == before


def test_more_gpus_than_there_are(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit, match=r"^error: num_gpus=3, but this machine has 2; give at"):
        run.command_line(["run.py", "with", "task_finetune_mmimdb", *settings, "num_gpus=3",
                          f"log_dir={tmp_path}"])  # fmt: skip
    assert not list(tmp_path.iterdir())


IN_A_SHELL = [
    ("run.py", next(row for row in messages.ROWS if row.command == "trian")),
    ("make_arrow.py", next(row for row in messages.CONVERT if "cut_label" in row.words)),
    ("make_arrow.py", next(row for row in messages.CONVERT if row.code == 2)),
]


@pytest.mark.parametrize(("program", "row"), IN_A_SHELL)
def test_in_a_shell_too(program, row, places, settings, tmp_path):
    words = words_of(row, places | {"out": tmp_path}, settings)
    done = shell(*words, program=program, fresh=True)
    assert done.returncode == row.code
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert re.search(row.pattern, done.stderr)
    assert not list(tmp_path.iterdir())
