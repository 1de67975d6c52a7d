"""A tiny CLIP and tiny arrow files, made once, and the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clip.modules.backbones.clip import load_clip
from tests import forked, raw_data, tiny
from vilt.utils import write_food101, write_hatememes

if sys.version_info < (3, 12):  # setuptools fails where somebody has imported distutils before it
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")
ROOT = Path(__file__).resolve().parents[1]
CPU = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "precision": "32-true"}  # as choose_device returns it
SIZES = {"train": 24, "dev": 9, "test": 12}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture
def folder(clip_folder, tmp_path):
    """A copy of the tiny CLIP, to be spoiled."""
    return shutil.copytree(clip_folder, tmp_path / "clip")


@pytest.fixture
def state(clip_folder):
    """Its tensors under OpenAI's names."""
    return dict(load_clip(str(clip_folder)).state)


@pytest.fixture(scope="session")
def arrow_folder(tmp_path_factory):
    """All three data sets in one folder."""
    target = tmp_path_factory.mktemp("arrow")
    tiny.write_arrow(target, SIZES)
    write_food101.make_arrow(raw_data.food101(target / "food", SIZES), target)
    write_hatememes.make_arrow(raw_data.hateful_memes(target / "memes", SIZES), target)
    return target


@pytest.fixture(scope="session")
def settings(arrow_folder, clip_folder):
    """What every command needs to run on the tiny files."""
    return [f"data_root={arrow_folder}", f"vit={clip_folder}", "num_gpus=0", "num_workers=0",
            "per_gpu_batchsize=4", "batch_size=8", f"prompt_length={tiny.LENGTH}",
            f"prompt_depth={tiny.DEPTH}"]  # fmt: skip


def shell(*arguments, cwd=ROOT, program="run.py", fresh=False):
    """Run a program of the project as a user does; run.py in a fork unless it needs a fresh interpreter."""
    if program == "run.py" and not fresh:
        return forked.start(*arguments, cwd=cwd).wait()
    command = [sys.executable, str(ROOT / program), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
