"""Frozen weights stored in bf16: under autocast nothing changes bitwise, and what trains or is saved is not cast."""

import pytest
import torch

from clip.modules import build_model
from clip.modules.backbones.vilt import convert_vilt
from clip.modules.prompts import PROMPT_TYPES
from tests import tiny, tiny_vilt
from tests.modules import test_coca, test_prompt_hooks
from tests.modules.test_methods import MIXED, build, gradients, moved, with_auxiliary


def check_cast(model, inputs):
    """Compare logits and gradients under autocast before and after the cast."""
    saved = {name: tensor.clone() for name, tensor in model.adapter_state_dict().items()}
    results = []
    for cast in (False, True):
        if cast:
            model.cast_frozen(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(*inputs)
            loss = with_auxiliary(model, logits.float().pow(2).sum())
        results.append([logits.detach(), *gradients(model, loss)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(tensor.dtype == torch.float32 for tensor in results[1][1:])
    state = model.adapter_state_dict()
    assert all(torch.equal(saved[name], state[name]) and state[name].dtype == saved[name].dtype for name in saved)
    return {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}


@pytest.mark.parametrize("name", PROMPT_TYPES)
def test_results_are_those_of_autocast(name):
    model = moved(build(name))
    cast = check_cast(model, tiny.batch(MIXED))
    block = "text_encoder.transformer.resblocks.0.mlp.c_fc.weight"
    assert (block in cast) == (name != "finetune")
    assert not cast & set(model.trainable_names())


@pytest.mark.parametrize("name", ["dcp", "mmp_attention", "lora"])
def test_results_of_coca_are_those_of_autocast(name):
    assert "image_encoder.attn_pool.attn.k_proj_weight" in check_cast(
        moved(test_coca.build(name)), test_coca.batch(test_coca.CASES)
    )


@pytest.mark.parametrize("name", ["dcp", "memprompt", "dora"])
def test_results_of_vilt_are_those_of_autocast(name):
    state = convert_vilt(tiny_vilt.random_vilt().state_dict())
    model = moved(build_model(state, name, 5, 6, 2, backbone="vilt").eval())
    cast = check_cast(model, test_prompt_hooks.inputs("vilt"))
    assert "stream.conv1.weight" in cast
    assert "stream.pooler.weight" not in cast  # it trains
