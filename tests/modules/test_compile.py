"""Compiled blocks compute what the plain ones do, for batches of any composition."""

from dataclasses import replace
from functools import partialmethod

import pytest
import torch
from torch import nn

from clip.cli.build import build_all
from clip.cli.schema import make_config
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.utils.errors import UserError
from tests import tiny
from tests.conftest import CPU

ONLY_TEXTS = [MISSING_IMAGE] * 2  # no image at all


def test_compiled_towers_give_the_same_logits_and_gradients(monkeypatch):
    """The graphs that torch traces run without its C++ code, which takes minutes to generate."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    torch.manual_seed(3)
    sizes = replace(tiny.SIZES, image_layers=2, text_layers=2)
    model = build_model(tiny.clip_state(sizes), "dcp", 5, tiny.LENGTH, tiny.DEPTH)
    named = dict(model.named_parameters())
    parameters = [named[name] for name in model.trainable_names()]

    def step(cases):
        logits = model(*tiny.batch(cases, sizes))
        gradients = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
        return logits.detach(), [g for g in gradients if g is not None]

    compositions = ([COMPLETE, MISSING_TEXT, MISSING_IMAGE], ONLY_TEXTS)
    plain = [step(cases) for cases in compositions]
    model.compile_towers()
    for cases, (logits, gradients) in zip(compositions, plain, strict=True):
        found, slopes = step(cases)
        torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
        for a, b in zip(slopes, gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5 + 1e-4 * float(b.abs().max()), rtol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_compiling_for_a_cpu_needs_a_compiler(monkeypatch, arrow_folder, clip_folder):
    monkeypatch.setenv("CXX", "no-such-compiler")
    changes = {"data_root": str(arrow_folder), "vit": str(clip_folder), "compile": True, "per_gpu_batchsize": 4,
               "prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH}  # fmt: skip
    config = make_config(changes, set(changes))
    with pytest.raises(UserError, match="no-such-compiler"):
        build_all(config, CPU)
    build_all(config, CPU | {"accelerator": "gpu"})  # a GPU's compiler comes with torch
