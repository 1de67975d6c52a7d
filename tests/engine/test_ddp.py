"""Two processes on one CPU give what one gives: the same losses, weights and scores."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.prompts import PromptMethod
from clip.modules.prompts.aoept import AOEPT
from tests import forked, raw_data, tiny
from tests.conftest import ROOT, shell
from tests.engine import rows_grid
from tests.engine.test_faults import At, checkpoint, equal, logged, stop
from vilt.utils import write_hatememes

ODD = 9  # samples: two processes get five and four, which are two batches and one


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "run.py")]


def children(pid):
    """Return the process ids of the children of a process and of theirs."""
    found = []
    for line in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, line.read_text().split())
    return found + [each for child in found for each in children(child)]


def until(condition, seconds):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def take_rank(rank):
    rank_zero_only.rank = rank  # Lightning reads it from the environment when it is imported


def stop_at(place, rank):
    take_rank(rank)
    MissingAwarePromptModule.configure_callbacks = lambda _: [At(place, stop)]


def twice(*arguments, before=take_rank, code=0):
    """The command line in two forks with the environment of torchrun; return what they printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
             "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "none"}  # fmt: skip
    forks = []
    for rank in (0, 1):
        env = {key: str(value) for key, value in (group | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        forks.append(forked.start(*arguments, env=env, before=partial(before, rank)))
    first, second = (fork.wait() for fork in forks)
    assert (first.returncode, second.returncode) == (code, code), first.stderr + second.stderr
    return first.stdout + second.stdout + first.stderr + second.stderr


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def odd_settings(settings, tmp_path_factory):
    folder = tiny.write_arrow(tmp_path_factory.mktemp("odd"), {"train": 22, "dev": ODD, "test": ODD})
    return [text for text in settings if not text.startswith("data_root")] + [f"data_root={folder}"]


def fill_the_first_memory_only(rank):
    take_rank(rank)
    if rank:
        AOEPT.prepare = PromptMethod.prepare


MEMORY = ("prompt_type=aoept", "aoept.memory=4", "aoept.coefficient=0", "clip.missing=dummy")


@pytest.mark.parametrize("method", [(), MEMORY])  # AOEPT's own loss compares the samples of a micro-batch
def test_two_processes_equal_one(method, odd_settings, tmp_path):
    common = ["with", "task_finetune_mmimdb", *odd_settings, *method, "max_epoch=2", "exp_name=d",
              "val_check_interval=1.0"]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert shell(*common, f"log_dir={one}").returncode == 0
    done = twice(*common, f"log_dir={two}", before=fill_the_first_memory_only)
    assert done.count("samples per step") == 1
    for name in ("train/loss", "val/loss", "val/F1_Macro", "val/mAP"):
        found, wanted = (
            pd.read_csv(only(folder, "d_*/version_0/metrics.csv"))[name].dropna().to_numpy() for folder in (two, one)
        )
        assert found == pytest.approx(wanted, abs=1e-5), name
    states = [torch.load(only(folder, "**/*-last.pt"), weights_only=True) for folder in (one, two)]
    assert states[0]["global_step"] == states[1]["global_step"] == 6
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, atol=1e-4, rtol=1e-3)

    test = ["with", "task_finetune_mmimdb", *odd_settings, f"load_path={one}", "test_only=True",
            "exp_name=t"]  # fmt: skip
    assert shell(*test, f"log_dir={one}").returncode == 0
    twice(*test, f"log_dir={two}")
    scores = [json.loads(only(folder, "t_*/version_0/metrics.json").read_text())
              for folder in (one, two)]  # fmt: skip
    assert scores[0].pop("constant_baseline") == scores[1].pop("constant_baseline")
    assert scores[0].pop("missing_tables") == scores[1].pop("missing_tables")
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)
    ours, theirs = (pd.read_csv(only(folder, "t_*/version_0/classes.csv")) for folder in (two, one))
    assert theirs["support"].sum() == ODD  # of one genre each
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("micro_batch", "place"), [(4, (1, 2)), (2, (1, 5))])  # one pass of the epoch is left
def test_stopped_run_of_two_processes_continues_bitwise(micro_batch, place, settings, tmp_path):
    """24 samples in steps of 8: three passes of each process in an epoch, or six."""
    words = ["with", "task_finetune_mmimdb", *settings, f"per_gpu_batchsize={micro_batch}", "max_epoch=3"]
    words += ["val_check_interval=0.34", "learning_rate=0.02", "exp_name=s"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    twice(*words, f"log_dir={whole}")
    twice(*words, f"log_dir={parts}", before=partial(stop_at, place), code=128 + signal.SIGTERM)
    twice(*words, f"log_dir={parts}", f"resume_from={parts}")
    for kind in ("best", "last"):
        (name, ours), (other, theirs) = (checkpoint(folder, kind) for folder in (whole, parts))
        assert name == other
        assert equal(ours["state_dict"], theirs["state_dict"])
    assert equal(ours["optimizer_states"], theirs["optimizer_states"])
    assert logged(whole) == logged(parts)


def test_a_loss_that_is_not_finite_stops_all_processes(settings, tmp_path):
    done = twice("with", "task_finetune_mmimdb", *settings, "exp_name=n", "learning_rate=1e20", "warmup_steps=0",
                 "val_check_interval=1.0", f"log_dir={tmp_path}", code=1)  # fmt: skip
    named = re.findall(r"train/loss is not finite in epoch 0, step \d+, sample ids \[([\d, ]+)\]", done)
    assert len({sample for ids in named for sample in ids.split(", ")}) == 8


def test_few_rows_are_scored_as_by_one_process(clip_folder, tmp_path):
    (tmp_path / "clip").symlink_to(clip_folder)
    for rows in rows_grid.ROWS:
        sizes, folder = dict.fromkeys(raw_data.SPLITS, rows), tmp_path / f"data{rows}"
        tiny.write_arrow(folder, sizes)
        write_hatememes.make_arrow(raw_data.hateful_memes(folder / "memes", sizes), folder)
    done = forked.start(tmp_path, program="tests/engine/rows_grid.py").wait()
    assert done.returncode == 0, done.stderr
    wanted = json.loads((tmp_path / "1-0.json").read_text())
    assert len(wanted) == len(rows_grid.CELLS) * len(rows_grid.ROWS)
    for path in (tmp_path / f"3-{rank}.json" for rank in range(3)):
        for cell, scores in json.loads(path.read_text()).items():
            # If the rows do not divide by the processes, training repeats samples, as every DistributedSampler does.
            known = scores.keys() if int(cell.split()[1]) % 3 == 0 else [s for s in scores if s[:4] == "test"]
            assert scores.keys() == wanted[cell].keys()
            assert scores["test/rows"] == int(cell.split()[1])
            for name in known:
                assert scores[name] == pytest.approx(wanted[cell][name], abs=1e-5, nan_ok=True), (path.name, cell, name)


def test_killed_process_ends_all_others_within_a_minute(settings, tmp_path):
    """The data are those that hung before: three validation rows, of which one process has one."""
    data = tiny.write_arrow(tmp_path / "data", {"train": 36, "dev": 3, "test": 3})
    words = ["with", "task_finetune_mmimdb", *settings, f"data_root={data}", f"log_dir={tmp_path / 'run'}",
             "num_workers=1", "max_epoch=10000"]  # fmt: skip
    with subprocess.Popen([*TORCHRUN, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as main:
        try:
            until(lambda: list(tmp_path.rglob("epoch-*-last.pt")) or main.poll() is not None, 300)
            processes = children(main.pid)
            assert len(processes) > 4  # two ranks and their workers
            os.kill(processes[1], signal.SIGKILL)
            assert main.wait(60) == 1
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), 20)
        finally:
            for pid in [*children(main.pid), main.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
