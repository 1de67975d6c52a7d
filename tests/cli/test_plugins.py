"""A module of the user's own adds a method, and a checkpoint finds it and its weights again from another folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.conftest import ROOT

METHOD = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.S)[1]  # verbatim
LOAD = """
import clip
model = clip.load({path!r}, plugins="my_methods")
features = model.encode(texts=["a ghost", "a train"])
print(model.source["method"], tuple(features.shape), bool((features[0] != features[1]).any()))
"""


@pytest.fixture(scope="module")
def research(tmp_path_factory, clip_folder, arrow_folder):
    """A folder with my_methods.py, weights at a relative path, and a run trained there with the page's method."""
    folder = tmp_path_factory.mktemp("research")
    (folder / "my_methods.py").write_text(METHOD)
    (folder / "weights").symlink_to(clip_folder)
    words = ["with", "task_finetune_mmimdb", f"data_root={arrow_folder}", "vit=weights", "exp_name=own", "num_gpus=0"]
    words += ["fading.fade=0.7", "prompt_type=fading", "plugins=my_methods", "prompt_length=3", "prompt_depth=2"]
    words += ["batch_size=8", "per_gpu_batchsize=8", "max_epoch=1", "num_workers=0"]
    ended = run_beside(folder, *words)
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if "test_only=True" in line and "my_methods" in line]
    (run_folder,) = folder.glob("result/own_fading_*/version_0")
    return folder, run_folder


def add_working_directory():
    sys.path.append(str(Path.cwd()))


def run_beside(folder, *words):
    """Run run.py in a folder whose modules can be imported."""
    return forked.start(*words, cwd=folder, before=add_working_directory).wait()


def test_a_method_of_a_plugin_trains_and_loads_from_another_folder(research, tmp_path):
    folder, run_folder = research
    record = json.loads((run_folder / "run.json").read_text())
    assert record["config"]["plugins"] == record["model_config"]["plugins"] == ["my_methods"]
    assert record["model_config"]["fading.fade"] == 0.7
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, folder)))}
    words = [sys.executable, "-c", LOAD.format(path=str(run_folder))]
    loaded = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert re.fullmatch(r"fading \(2, \d+\) True", loaded.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("words", [["plugins=no_such_module"], ["plugins=antigravity"], []])
def test_a_plugin_that_cannot_be_imported_is_one_line(research, tmp_path, words):
    _, run_folder = research
    words = ["predict", "with", f"load_path={run_folder}", "predict.text=ghost", "num_gpus=0", *words]
    ended = run_beside(tmp_path, *words)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
    name = words[-1].removeprefix("plugins=") if "plugins" in words[-1] else "my_methods"
    assert f"plugins={name}" in ended.stderr
