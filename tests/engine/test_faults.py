"""What happens to a training: signals, losses that are no numbers, changed files."""

import os
import re
import shutil
import signal

import pandas as pd
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch

import run
from clip.datasets.arrow_dataset import fingerprint
from clip.engine import trainer as runs


class At(pl.Callback):
    """Does something at a batch, and draws from the global random state at each."""

    def __init__(self, epoch, batch, action):
        self.place, self.action, self.drawn = (epoch, batch), action, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.drawn.append(float(torch.rand(())))
        if (trainer.current_epoch, batch_idx) == self.place:
            self.action(batch)


@pytest.fixture
def call(settings, tmp_path, monkeypatch):
    """A training in this process with a callback more: its exit code, or what it says."""
    make = runs.make_trainer

    def inner(name, *words, callback=None):
        def with_callback(log, device, own, **rest):
            return make(log, device, [*own, *([callback] if callback else [])], **rest)

        monkeypatch.setattr(runs, "make_trainer", with_callback)
        common = ["task_finetune_mmimdb", *settings, "learning_rate=0.02"]
        try:
            run.command_line(["run.py", "with", *common, f"log_dir={tmp_path / name}", *words])
        except SystemExit as ended:
            return ended.code
        return 0

    return inner


def rows(folder):
    """What was logged, in all versions of a run together."""
    tables = [pd.read_csv(path) for path in sorted(folder.glob("*/version_*/metrics.csv"))]
    names = sorted(name for name in tables[0] if not name.startswith("lr-"))
    scores = [name for name in names if "/" in name]
    table = pd.concat(tables).dropna(how="all", subset=scores)
    return sorted(map(tuple, table[names].fillna(-1).to_numpy().tolist()))


def final(folder, kind):
    path = runs.find_checkpoint(str(folder), kind)
    return path.name, torch.load(path, weights_only=True)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def stop(batch):
    os.kill(os.getpid(), signal.SIGTERM)


# 24 samples in steps of two micro-batches of 4: the signal comes within a step, and the run may
# stop only behind it; then at the end of an epoch. Loader workers fetch ahead.
@pytest.mark.parametrize(
    ("place", "batches", "words"),
    [((1, 2), 4, ["num_workers=2"]), ((0, 5), 6, ["max_steps=7"])],
)
def test_a_stopped_training_goes_on_bitwise(place, batches, words, call, tmp_path, capsys):
    words = [*words, "max_epoch=3", "val_check_interval=0.34", "simulate_missing=True"]
    seen = [At(0, -1, None), At(*place, stop), At(0, -1, None)]
    assert call("whole", *words, callback=seen[0]) == 0
    assert call("stopped", *words, callback=seen[1]) == 143
    said = capsys.readouterr().out
    step = (place[0] * 6 + batches) // 2
    assert f"stopped by SIGTERM after step {step}; " in said
    where = said.split("resume_from=")[1].split()[0]
    assert call("stopped", *words, f"resume_from={where}", callback=seen[2]) == 0
    (best, ours), (last, our_last) = (final(tmp_path / "whole", kind) for kind in ("best", "last"))
    (name, theirs), (last_name, their_last) = (final(tmp_path / "stopped", kind) for kind in ("best", "last"))
    assert (best, last) == (name, last_name)
    assert equal(ours["state_dict"], theirs["state_dict"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert equal(our_last[part], their_last[part]), part
    assert rows(tmp_path / "whole") == rows(tmp_path / "stopped")
    repeated = len(seen[1].drawn) + len(seen[2].drawn) - len(seen[0].drawn)  # fetched, not begun
    before = seen[1].drawn[: len(seen[1].drawn) - repeated]
    assert before + seen[2].drawn == seen[0].drawn


def test_a_point_within_an_epoch_is_of_its_micro_batches(call, tmp_path):
    assert call("stopped", "max_epoch=2", callback=At(0, 2, stop)) == 143
    message = call("stopped", "max_epoch=2", "per_gpu_batchsize=2", f"resume_from={tmp_path}")
    assert "stopped within an epoch, has per_gpu_batchsize=4, but this run has" in message


def test_without_loader_workers_or_with_them_a_resumed_epoch_has_its_own_order(call, tmp_path):
    """The end of an epoch, where no sampler leaves anything out."""
    for name, words in (("none", ["num_workers=0"]), ("two", ["num_workers=2"])):
        call(name, "max_epoch=1", *words)
        call(name, "max_epoch=2", f"resume_from={tmp_path / name}", *words)
    assert equal(*(final(tmp_path / name, "last")[1]["state_dict"] for name in ("none", "two")))


def spoil(batch):
    batch["label"][0] = torch.nan


def test_a_loss_that_is_not_finite_stops_before_its_step_and_names_the_samples(call, tmp_path):
    message = call("stop", "max_epoch=2", callback=At(1, 3, spoil))
    found = re.search(r"epoch 1, step 4, sample ids \[(\d+(?:, \d+){3})\]", message)
    assert message.startswith("error: train/loss is not finite in ")
    order = list(torch.utils.data.DistributedSampler(range(24), 1, 0, seed=0))  # of epoch 0
    assert [int(sample) for sample in found[1].split(", ")] != order[12:16]  # epoch 1 has another one
    name, last = final(tmp_path / "stop", "last")
    assert name.startswith("epoch-00-")
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def changed(arrow_folder, tmp_path, alter):
    """The data with another training file."""
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in arrow_folder.glob("mmimdb_*.arrow"):
        shutil.copy(path, folder)
    table = pa.ipc.open_file(folder / "mmimdb_train.arrow").read_all()
    columns = table.to_pydict()
    alter(columns)
    with arrow_writer(folder / "mmimdb_train.arrow", table.schema) as writer:
        writer.write_table(pa.table(columns, table.schema))
    return folder


def arrow_writer(path, schema):
    path.unlink()
    return pa.ipc.new_file(path, schema)


def other_label(columns):
    columns["label"][7] = columns["label"][8]


def other_image(columns):
    columns["image"][7] = columns["image"][7][:-1] + b"?"


def other_text(columns):
    columns["plots"][7] = ["another"]


@pytest.mark.parametrize("alter", [other_label, other_image, other_text])
def test_a_run_does_not_go_on_with_other_files(alter, call, arrow_folder, tmp_path):
    data = changed(arrow_folder, tmp_path, alter)
    prints = [fingerprint(folder / "mmimdb_train.arrow") for folder in (arrow_folder, data)]
    assert prints[0] != prints[1]
    assert call("run", "max_epoch=1") == 0
    message = call("run", "max_epoch=2", f"data_root={data}", f"resume_from={tmp_path / 'run'}")
    assert f"arrow_files.train={prints[0]}" in message
    assert f"arrow_files.train={prints[1]}" in message


def test_names_and_cuts_of_files_do_not_count(arrow_folder, tmp_path):
    table = pa.ipc.open_file(arrow_folder / "mmimdb_train.arrow").read_all()
    paths = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for path, part in zip(paths, (table[:5], table[5:]), strict=True):
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(part)
    assert fingerprint(*paths) == fingerprint(arrow_folder / "mmimdb_train.arrow")
    assert fingerprint(*reversed(paths)) != fingerprint(*paths)
