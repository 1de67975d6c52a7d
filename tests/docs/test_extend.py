"""The examples of docs/extend.md do what the page says."""

import json
import re
from pathlib import Path

import pytest
import torch

from clip.datasets import DATASETS, DatasetSpec
from clip.modules import build_model
from clip.modules.objectives import resolve_task
from clip.modules.prompts import PROMPT_TYPES
from clip.utils.errors import UserError
from tests import tiny
from tests.raw_data import draw

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extend.md").read_text()


def test_the_method_of_the_page_trains(monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    assert len(code.splitlines()) <= 60
    names = {"__name__": "my_methods"}
    monkeypatch.setitem(PROMPT_TYPES, "fading", None)  # removed again after the test
    exec(compile(code, "docs/extend.md", "exec"), names)
    torch.manual_seed(0)
    shape = {"prompt_length": 4, "prompt_depth": 2}
    model = build_model(tiny.clip_state(), "fading", 5, fade=0.7, **shape)
    before = {name: model.get_parameter(name).clone() for name in model.trainable_names()}
    assert "prompts.strength" in before
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(2):
        losses.append(model(*tiny.batch([0, 1, 2])).pow(2).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
    assert not any(torch.equal(model.get_parameter(name), old) for name, old in before.items())
    with pytest.raises(UserError, match="fading.fade=2"):
        build_model(tiny.clip_state(), "fading", 5, fade=2, **shape)


def test_the_data_set_of_the_page_converts_and_is_found(tmp_path):
    names = {"__name__": "vilt.utils.write_flowers"}
    exec(compile(re.findall(r"```python\n(.*?)```", PAGE, re.S)[1], "docs/extend.md", "exec"), names)
    rows = [["1.png", "red", "rose"], ["2.png", "", "tulip"], ["3.png", "grey", "stone"]]
    for file, *_ in rows:
        draw(tmp_path / "images" / file, 3)
    (tmp_path / "flowers.json").write_text(json.dumps(dict.fromkeys(names["PUBLISHED"], rows)))
    report = names["make_arrow"](tmp_path, tmp_path)
    assert "class stone is unknown: 1 (3.png)" in report
    row = re.search(r'`"flowers": (DatasetSpec\(.*?\))` \|', PAGE)[1]
    flowers = eval(row, {"DatasetSpec": DatasetSpec})
    assert flowers.find(tmp_path, "test") == [tmp_path / "flowers_test.arrow"]
    label_metadata = flowers.label_metadata(tmp_path)
    assert label_metadata["class_names"] == list(names["CLASSES"])
    assert resolve_task("manifest", label_metadata).num_classes == 3
    assert "flowers" not in DATASETS
