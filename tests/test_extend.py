"""The examples of docs/extend.md do what the page says."""

import re
from pathlib import Path

import pytest
import torch

from clip.modules import build_model
from clip.modules.prompts import PROMPT_TYPES
from tests import tiny

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extend.md").read_text()


def test_the_method_of_the_page_trains(monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    assert len(code.splitlines()) <= 60
    names = {"__name__": "clip.modules.prompts.fading"}
    exec(compile(code, "docs/extend.md", "exec"), names)
    monkeypatch.setitem(PROMPT_TYPES, "fading", names["FadingPrompts"])
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
    with pytest.raises(ValueError, match="fading.fade=2"):
        build_model(tiny.clip_state(), "fading", 5, fade=2, **shape)
