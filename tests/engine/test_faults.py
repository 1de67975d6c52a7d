"""Interrupted training runs: signals, non-finite losses and changed files."""

import multiprocessing
import os
import re
import shutil
import signal
import sys
import time

import pandas as pd
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch

import run
from clip.datasets.arrow_dataset import fingerprint
from clip.engine.checkpoints import find_checkpoint
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from tests import forked
from tests.conftest import shell


class At(pl.Callback):
    """Call a function at one micro-batch."""

    def __init__(self, place, action):
        self.place, self.action = place, action

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            self.action(batch)


@pytest.fixture
def train(settings, tmp_path, monkeypatch):
    """A training run in this process with one more callback; returns its exit code or its error line."""

    def inner(name, *words, callback=None):
        monkeypatch.setattr(MissingAwarePromptModule, "configure_callbacks", lambda _: [callback] if callback else [])
        command = [
            "run.py",
            "with",
            "task_finetune_mmimdb",
            *settings,
            "learning_rate=0.02",
            f"log_dir={tmp_path / name}",
        ]
        try:
            run.command_line([*command, *words])
        except SystemExit as end:
            return end.code
        return 0

    return inner


def logged(folder):
    """Return the rows of the log of all versions of a run."""
    table = pd.concat(pd.read_csv(path) for path in sorted(folder.glob("*/version_*/metrics.csv")))
    names = sorted(table)
    table = table.dropna(how="all", subset=[name for name in names if "/" in name])
    return sorted(map(tuple, table[names].fillna(-1).to_numpy().tolist()))


def checkpoint(folder, kind):
    path = find_checkpoint(str(folder), kind)
    return path.name, torch.load(path, weights_only=True)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def stop(batch):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder of the runs that no test changes."""
    return tmp_path_factory.mktemp("shared")


# 24 samples in micro-batches of 4: an epoch of 6 passes, validated after every second one.
STOPS = [(8, place, ()) for place in ((0, 1), (1, 0), (1, 3), (1, 4), (1, 5))]
STOPS += [(4, (1, batch), ()) for batch in (0, 1, 4, 5)]
STOPS += [(8, (1, 2), ("num_workers=2", "simulate_missing=True")), (8, (0, 5), ("max_steps=7",))]
STOPS += [(8, (1, 3), ("prompt_type=aoept", "aoept.memory=4"))]  # its memory is in the checkpoint
STOPS += [(8, (0, 5), ("early_stopping=2",)), (8, (0, 3), ("early_stopping=2", "select_by=mAP"))]  # ends after both


@pytest.mark.parametrize(("batch_size", "place", "words"), STOPS)
def test_stopped_run_continues_bitwise(batch_size, place, words, train, shared, tmp_path, monkeypatch):
    words = [*words, f"batch_size={batch_size}", "max_epoch=3", "val_check_interval=0.34"]
    whole = shared / "_".join(words)
    if not whole.exists():
        assert train(whole, *words) == 0
    assert train("stopped", *words, callback=At(place, stop)) == 128 + signal.SIGTERM
    monkeypatch.setattr(MissingAwarePromptModule, "prepare_method", pytest.fail)  # what it prepared is not made again
    assert train("stopped", *words, f"resume_from={tmp_path / 'stopped'}") == 0
    (best, ours), (last, our_last) = (checkpoint(whole, kind) for kind in ("best", "last"))
    (name, theirs), (last_name, their_last) = (checkpoint(tmp_path / "stopped", kind) for kind in ("best", "last"))
    assert (best, last) == (name, last_name)
    assert equal(ours["state_dict"], theirs["state_dict"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert equal(our_last[part], their_last[part]), part
    assert logged(whole) == logged(tmp_path / "stopped")


def test_position_within_an_epoch_needs_the_same_micro_batches(train, tmp_path):
    assert train("stopped", "max_epoch=2", callback=At((0, 2), stop)) == 128 + signal.SIGTERM
    message = train("stopped", "max_epoch=2", "per_gpu_batchsize=2", f"resume_from={tmp_path}")
    assert "per_gpu_batchsize=4" in message
    assert "per_gpu_batchsize=2" in message


def test_order_of_a_resumed_epoch_does_not_depend_on_loader_workers(train, tmp_path):
    for workers in ("0", "2"):
        train(workers, "max_epoch=1", f"num_workers={workers}")
        train(workers, "max_epoch=2", f"num_workers={workers}", f"resume_from={tmp_path / workers}")
    assert equal(*(checkpoint(tmp_path / workers, "last")[1]["state_dict"] for workers in ("0", "2")))


def test_non_finite_loss_stops_with_its_samples_and_keeps_the_last_checkpoint(train, tmp_path):
    samples = []

    def spoil(batch):
        batch["label"][0] = torch.nan
        samples.extend(batch["sample_id"].tolist())

    message = train("run", "max_epoch=2", callback=At((1, 3), spoil))
    assert message.startswith("error: ")
    assert "train/loss" in message
    assert str(samples[0]) in message
    name, last = checkpoint(tmp_path / "run", "last")
    assert name.startswith("epoch-00-")
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_a_run_that_ignores_a_signal_goes_on(settings, tmp_path):
    """As under nohup when the terminal is closed."""
    done = forked.start("with", "task_finetune_mmimdb", *settings, "max_epoch=1", f"log_dir={tmp_path}",
                        before=hang_up_while_training).wait()  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "best val" in done.stdout


def hang_up_while_training():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    action = At((0, 2), lambda _: os.kill(os.getpid(), signal.SIGHUP))
    MissingAwarePromptModule.configure_callbacks = lambda _: [action]


def stop_before_the_test():
    MissingAwarePromptModule.on_test_start = stop
    sys.stdout.reconfigure(encoding="ascii")


def test_a_stopped_test_has_the_exit_code_of_its_signal(train, settings, tmp_path):
    run_folder = tmp_path / "実験"
    assert train(run_folder, "max_steps=1") == 0
    done = forked.start("with", "task_finetune_mmimdb", *settings, "test_only=True", f"load_path={run_folder}",
                        before=stop_before_the_test).wait()  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM
    assert re.search("^error: [^\n]+$", done.stderr, re.MULTILINE), done.stderr
    assert "run folder" in done.stdout


def test_a_best_checkpoint_that_was_removed_is_named(train, tmp_path):
    remove = At((1, 5), lambda _: find_checkpoint(str(tmp_path / "run"), "best").unlink())
    message = train("run", "max_epoch=2", "val_check_interval=1.0", "learning_rate=1e-30", callback=remove)
    assert message.startswith("error: ")
    assert "best.pt" in message
    assert not list((tmp_path / "run").rglob("metrics.json"))


def test_killed_loader_worker_is_one_line_and_leaves_no_other(train):
    def kill(batch):
        multiprocessing.active_children()[0].kill()
        time.sleep(60)  # torch's handler of SIGCHLD raises here

    message = train("run", "num_workers=2", callback=At((0, 1), kill))
    assert "num_workers=0" in message
    assert "\n" not in message
    assert not multiprocessing.active_children()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Variables of a SLURM job of one task, with a scontrol that leaves a trace in the folder it returns."""
    job = {"JOB_ID": 7, "JOB_NAME": "dcp", "NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_NUM_NODES": 1}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text('#!/bin/sh\ntouch "$(dirname "$0")/called"\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


def test_signal_in_a_slurm_job_neither_requeues_nor_writes_outside_the_run(slurm, train, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    warn = At((1, 2), lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    assert train("run", "max_epoch=3", callback=warn) == 128 + signal.SIGUSR1
    assert not list(here.iterdir())
    assert [path.name for path in slurm.iterdir()] == ["scontrol"]
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    (here / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    assert train("test", "test_only=True", f"load_path={tmp_path / 'run'}") == 0


def test_variables_left_by_launchers_do_not_change_a_run_in_one_process(slurm, settings, tmp_path, monkeypatch):
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "SLURM_PROCID": 1, "SLURM_NTASKS": 4}.items():
        monkeypatch.setenv(name, str(value))
    done = shell("with", "task_finetune_mmimdb", *settings, "max_epoch=1", f"log_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "best val F1-Macro" in done.stdout
    (folder,) = (tmp_path / "run").glob("*/version_*")
    assert {"run.json", "metrics.json", "metrics.csv"} <= {path.name for path in folder.iterdir()}


def write_arrow(path, table):
    path.unlink(missing_ok=True)  # it may be mapped
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def change_label(columns):
    columns["label"][7] = columns["label"][8]


def change_image(columns):
    columns["image"][7] = columns["image"][7][:-1] + b"?"


def change_text(columns):
    columns["plots"][7] = ["another"]


@pytest.mark.parametrize("change", [change_label, change_image, change_text])
def test_run_does_not_continue_with_other_data(change, train, arrow_folder, shared, tmp_path):
    data = tmp_path / "changed"
    data.mkdir()
    for path in arrow_folder.glob("mmimdb_*.arrow"):
        shutil.copy(path, data)
    table = pa.ipc.open_file(data / "mmimdb_train.arrow").read_all()
    columns = table.to_pydict()
    change(columns)
    write_arrow(data / "mmimdb_train.arrow", pa.table(columns, table.schema))
    prints = [fingerprint(folder / "mmimdb_train.arrow") for folder in (arrow_folder, data)]
    assert prints[0] != prints[1]
    run_folder = shared / "one epoch"
    if not run_folder.exists():
        assert train(run_folder, "max_epoch=1") == 0
    message = train("run", "max_epoch=2", f"data_root={data}", f"resume_from={run_folder}")
    assert all(f"arrow_files.train={each}" in message for each in prints)


def test_fingerprint_does_not_depend_on_shards(arrow_folder, tmp_path):
    table = pa.ipc.open_file(arrow_folder / "mmimdb_train.arrow").read_all()
    paths = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for path, part in zip(paths, (table[:5], table[5:]), strict=True):
        write_arrow(path, part)
    assert fingerprint(*paths) == fingerprint(arrow_folder / "mmimdb_train.arrow")
    assert fingerprint(*reversed(paths)) != fingerprint(*paths)
