"""Full disks, files left behind, folders that two want, clocks that were set back."""

import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from clip.engine import run_folder
from clip.engine.checkpoints import find_checkpoint
from clip.utils.errors import UserError
from tests import forked


def limited(size, program, *words):
    """A program of which no file may become larger: to it, the disk is full."""
    before = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    done = forked.start(*words, program=program, before=before).wait()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_no_room_for_a_checkpoint_is_one_line_and_keeps_the_ones_before(settings, tmp_path):
    """The best one fits, the last one does not."""
    message = limited(600_000, "run.py", "with", "task_finetune_mmimdb", *settings,
                      f"log_dir={tmp_path}", "max_epoch=1")  # fmt: skip
    assert "error: " in message
    assert "-last.pt: File too large" in message
    (best,) = tmp_path.rglob("*.pt")
    assert torch.load(best, weights_only=True)["state_dict"]
    assert not [path for path in tmp_path.rglob(".*")]


def test_no_room_for_arrow_files_keeps_the_old_ones(arrow_folder, tmp_path):
    shutil.copy(arrow_folder / "mmimdb_train.arrow", tmp_path)
    before = (tmp_path / "mmimdb_train.arrow").read_bytes()
    words = ["--dataset", "mmimdb", "--root", arrow_folder / "raw", "--target", tmp_path]
    message = limited(4000, "make_arrow.py", *words, "--num_workers", 0)
    assert message.startswith(f"error: {tmp_path}/mmimdb_train.arrow: File too large")
    assert [path.name for path in tmp_path.iterdir()] == ["mmimdb_train.arrow"]
    assert (tmp_path / "mmimdb_train.arrow").read_bytes() == before


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: run_folder.make_version_dir(tmp_path / "run").name, range(40)))
    assert set(versions) == {f"version_{number}" for number in range(40)}


def test_a_clock_that_was_set_back_does_not_change_which_checkpoint_is_newest(tmp_path):
    names = ["version_9/epoch-03-step-000040-last.pt", "version_10/epoch-01-step-000010-last.pt",
             "version_10/epoch-01-step-000012-last.pt"]  # fmt: skip
    for age, name in enumerate(names):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert find_checkpoint(str(tmp_path), "last") == tmp_path / "run" / names[-1]
    elsewhere = tmp_path / "other" / names[0]
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    with pytest.raises(UserError, match="checkpoints of 2 runs"):
        find_checkpoint(str(tmp_path), "last")
