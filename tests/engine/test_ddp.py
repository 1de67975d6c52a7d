"""Two processes on one CPU give what one gives: the same losses, weights and scores."""

import json
import re
import socket
import subprocess
import sys
from functools import partial

import pandas as pd
import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from tests import forked, tiny
from tests.conftest import ROOT, shell

ODD = 9  # samples: two processes get five and four, which are two batches and one


def torchrun(*arguments):
    """The command line, started by torchrun in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run([*launch, str(ROOT / "run.py"), *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)  # fmt: skip


def take_rank(rank):
    rank_zero_only.rank = rank  # Lightning reads it from the environment when it is imported


def twice(*arguments):
    """The command line in two forks with the environment of torchrun; return what they printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
             "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "none"}  # fmt: skip
    forks = []
    for rank in (0, 1):
        env = {key: str(value) for key, value in (group | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        forks.append(forked.start(*arguments, env=env, before=partial(take_rank, rank)))
    first, second = (fork.wait() for fork in forks)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    return first.stdout + second.stdout


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def odd_settings(settings, tmp_path_factory):
    folder = tiny.write_arrow(tmp_path_factory.mktemp("odd"), {"train": 22, "dev": ODD, "test": ODD})
    return [text for text in settings if not text.startswith("data_root")] + [f"data_root={folder}"]


def test_two_processes_equal_one(odd_settings, tmp_path):
    common = ["with", "task_finetune_mmimdb", *odd_settings, "max_epoch=2", "exp_name=d",
              "val_check_interval=1.0"]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert shell(*common, f"log_dir={one}").returncode == 0
    assert twice(*common, f"log_dir={two}").count("samples per step") == 1
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


def test_a_loss_that_is_not_finite_stops_all_processes(settings, tmp_path):
    done = torchrun("with", "task_finetune_mmimdb", *settings, "exp_name=n", "learning_rate=1e20",
                 "warmup_steps=0", "val_check_interval=1.0", f"log_dir={tmp_path}")  # fmt: skip
    assert done.returncode == 1
    named = re.findall(r"train/loss is not finite in epoch 0, step \d+, sample ids \[([\d, ]+)\]", done.stderr)
    assert len({sample for ids in named for sample in ids.split(", ")}) == 8
