"""CoCa: open_clip's own numbers, a slow oracle with prompts, its files, and a run through the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clip.demo.pretrain import train_tokenizer
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.backbones.coca import load_coca
from clip.modules.prompted_coca import CocaImageTower, CocaSizes, CocaTextTower
from clip.transforms.clip import ClipTransform
from clip.utils.errors import UserError
from tests import tiny
from tests.modules import test_methods
from tests.modules.test_methods import assert_same, moved, with_loss
from tests.modules.vectors import draw
from tests.oracles.coca import image_outputs, slow_features, text_outputs
from tests.predicting import call

DATA = Path(__file__).parents[1] / "data" / "coca_a.npz"
SIZES = CocaSizes(128, 3, 8, 2, 64, 4, 12, 300, 64, queries=3)
OTHER = CocaSizes(64, 4, 4, 3, 192, 3, 9, 200, 128, queries=2)
CASES = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE, MISSING_IMAGE]


def state(sizes=SIZES):
    torch.manual_seed(0)
    image, text = CocaImageTower(sizes, "gelu"), CocaTextTower(sizes, "gelu")
    tensors = {f"visual.{name}": tensor for name, tensor in image.state_dict().items()}
    tensors |= {f"text.{name}": tensor for name, tensor in text.state_dict().items()}
    return {name: x + 0.1 * torch.randn_like(x) if x.ndim <= 1 else x for name, x in tensors.items()}


def batch(cases, sizes=SIZES):
    """Random images, and texts of which one fills all positions."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(cases), 3, sizes.image_size, sizes.image_size, generator=generator)
    ids = torch.zeros(len(cases), sizes.context, dtype=torch.long)
    for i, row in enumerate(ids):
        count = [3, sizes.context, 5, 2, 7][i % 5]
        row[:count] = torch.randint(1, sizes.vocabulary - 2, (count,), generator=generator)
        row[0], row[count - 1] = sizes.vocabulary - 2, sizes.vocabulary - 1
    return image, ids, torch.tensor(cases)


def build(method="none", sizes=SIZES, **settings):
    torch.manual_seed(3)
    settings = {"prompt_length": 6, "prompt_depth": 2, "activation": "gelu"} | settings
    return build_model(state(sizes), method, 5, backbone="coca", **settings).eval()


def test_open_clips_features_and_tokens():
    vectors = dict(np.load(DATA, allow_pickle=False))
    names = json.loads(str(vectors["config"]))["tensors"]
    tensors = {n: draw(n, s) for n, s in names.items() if not n.startswith(("text_decoder.", "logit_scale"))}
    model = build_model(tensors, "none", 5, backbone="coca", activation="gelu").eval()
    image, ids = torch.from_numpy(vectors["image"]), torch.from_numpy(vectors["ids"])
    with torch.no_grad():
        features = model.features(image, ids, torch.zeros(len(ids), dtype=torch.long))
        for name, half in zip(("image_features", "text_features"), features.chunk(2, dim=1), strict=True):
            np.testing.assert_allclose(half, vectors[name], atol=1e-5, rtol=0)
        for i in range(len(ids)):  # of the oracle, which the next test compares with
            image_tokens = image_outputs(model, model.image_encoder.embed(image[i : i + 1])[0], [])[1:]
            np.testing.assert_allclose(image_tokens, vectors["image_tokens"][i], atol=1e-5, rtol=0)
            text_tokens = text_outputs(model, model.text_encoder.embed(ids[i : i + 1])[0], [], ids[i])[:-1]
            np.testing.assert_allclose(text_tokens, vectors["text_tokens"][i], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("sizes", "shape", "cases"), [(SIZES, {}, CASES), (OTHER, test_methods.OTHER, CASES[1:4])])
@pytest.mark.parametrize("method", ["none", "dcp", "maple", "mmp", "coop", "dept", "dpl"])
def test_logits_loss_and_gradients_equal_the_slow_form(method, sizes, shape, cases):
    model, inputs = moved(build(method, sizes, **shape)), batch(cases, sizes)
    slow = model.prompts.heads(slow_features(model, *inputs), model.classifier, inputs[2])
    assert_same(model, *(with_loss(model, heads, inputs[2]) for heads in (model.heads(*inputs), slow)))


@pytest.mark.parametrize("method", ["mmp_attention", "msp", "lora", "mora", "dpl", "dept", "finetune"])
@pytest.mark.parametrize("cases", [CASES, [MISSING_IMAGE] * 2, [MISSING_TEXT] * 2])
def test_every_other_method_trains(method, cases):
    model = build(method)
    model(*batch(cases)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def write_coca(folder, suffix="safetensors", prefix="", **preprocess):
    """A folder as open_clip publishes them, decoder included."""
    tokenizer = train_tokenizer(tiny.TEXTS * 3, 560)
    sizes = replace(SIZES, context=76, vocabulary=len(tokenizer.vocab))
    tensors = state(sizes) | {"text_decoder.ln_final.weight": torch.ones(64), "logit_scale": torch.tensor(1.0)}
    tensors = {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "safetensors":
        save_file(tensors, folder / "open_clip_model.safetensors")
    else:
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    model = {"embed_dim": 64, "vision_cfg": {"image_size": 16, "width": 128, "layers": 3, "patch_size": 8}}
    model["text_cfg"] = {"context_length": 76, "vocab_size": sizes.vocabulary, "width": 64, "embed_cls": True}
    config = {
        "model_cfg": model,
        "preprocess_cfg": {"mean": [*ClipTransform.mean], "interpolation": "bicubic"} | preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer.save(folder)
    return folder


@pytest.mark.parametrize(("suffix", "prefix"), [("safetensors", ""), ("bin", "module.")])
def test_published_formats(tmp_path, suffix, prefix, capsys):
    backbone = load_coca(str(write_coca(tmp_path, suffix, prefix)), None, None, "")
    assert backbone.activation == "gelu"
    assert backbone.tokenizer.context == 76
    assert "64" in capsys.readouterr().out  # the numbers of the decoder
    plain = state(replace(SIZES, context=76, vocabulary=backbone.sizes.vocabulary))
    assert backbone.state.keys() == plain.keys()
    assert all(torch.equal(backbone.state[name], plain[name]) for name in plain)


def test_another_preprocessing_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="preprocess_cfg.interpolation"):
        load_coca(str(write_coca(tmp_path, interpolation="bilinear")), None, None, "")


def test_training_and_a_sweep_through_the_command_line(tmp_path):
    tiny.write_arrow(tmp_path / "data", {"train": 12, "dev": 6, "test": 6})
    vit = write_coca(tmp_path / "coca")
    settings = [f"data_root={tmp_path}/data", f"vit={vit}", "backbone=coca", f"log_dir={tmp_path}/result", "num_gpus=0"]
    settings += ["num_workers=0", "batch_size=4", "prompt_length=6", "prompt_depth=2", "max_epoch=1"]
    call("with", "task_finetune_mmimdb", *settings)
    (run,) = (tmp_path / "result").iterdir()
    call("sweep", "with", "task_finetune_mmimdb", *settings, f"load_path={run}", "coca.missing=zero")
    assert len(list(tmp_path.rglob("sweep.csv"))) == 1
