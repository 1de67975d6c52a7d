"""AOEPT: the release's reference numbers, a slow oracle, its memory, and a run through the command line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from clip.engine.checkpoints import find_checkpoint
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.backbones.clip import convert_clip
from clip.modules.prompted_clip import PLACEHOLDERS
from clip.modules.prompted_model import Inputs
from clip.modules.prompts import PromptConfig
from clip.modules.prompts.aoept import AOEPT
from clip.transforms.clip import ClipTransform
from clip.utils.errors import UserError
from tests import tiny
from tests.modules import test_coca
from tests.modules.test_methods import assert_same, moved, with_auxiliary
from tests.modules.vectors import assert_gradient, draw
from tests.oracles.aoept import slow_outputs
from tests.predicting import call, films, write_tables

DATA = Path(__file__).parents[1] / "data" / "aoept_a.npz"
BACKBONE = {
    "model.text_model.final_layer_norm": "text_encoder.ln_final",
    "model.vision_model.post_layernorm": "image_encoder.ln_post",
    "model.visual_projection.weight": "image_encoder.proj",
    "model.text_projection.weight": "text_encoder.text_projection",
}
PARTS = {"query": "queries", "layer_norm": "norm", "shared_layer_norm": "shared_norm", "shared_proj": "projections"}
PARTS |= {"gate_mlp": "gates", "shared_gate_mlp": "shared_gates", "init_tokens": "memory"}

MIXED = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE, MISSING_IMAGE]


def our_name(theirs):
    """Translate a name of the release, such as shared_text_gate_mlp.0.gate_net.2.bias."""
    for prefix, ours in BACKBONE.items():
        if theirs.startswith(prefix):
            return theirs.replace(prefix, ours)
    head, _, tail = theirs.replace("gate_net.", "").partition(".")
    if head in ("classifier", "logit_scale", "shared_query"):
        return {"classifier": f"classifier.{tail}", "shared_query": "prompts.shared"}.get(head, f"prompts.{theirs}")
    tower = "text" if "text" in head else "vision"
    part = PARTS[head.replace(f"{tower}_", "")]
    return ".".join(["prompts.towers", tower.replace("vision", "image"), part, tail]).rstrip(".")


@pytest.fixture
def released(monkeypatch):
    vectors = dict(np.load(DATA, allow_pickle=False))
    config = json.loads(str(vectors["config"]))
    backbone = convert_clip({name: draw(name, shape) for name, shape in config["backbone"].items()})
    mean, std = (torch.tensor(x)[:, None, None] for x in (ClipTransform.mean, ClipTransform.std))
    monkeypatch.setitem(PLACEHOLDERS, "white", 255 * (mean + std))  # missing images are ones behind the normalisation
    settings = {name: config[name] for name in ("memory", "reduction")} | {"coefficient": config["loss_alpha"]}
    model = build_model(
        backbone, "aoept", 6, config["own"] + config["shared"], config["depth"], reading="released",
        backbone_settings={"missing": "dummy"}, **settings,
    ).eval()  # fmt: skip
    tensors = model.state_dict()
    own = [name for name in config["trainable"] if not name.startswith("model.")]  # the others are the backbone's
    for name in [*own, *config["frozen_memory"]]:
        tensors[our_name(name)].copy_(draw(name, tensors[our_name(name)].shape))
    return model, config, vectors


def test_released_logits_losses_and_gradients(released):
    model, config, vectors = released
    batch = [torch.from_numpy(vectors[name]) for name in ("image", "ids", "cases")]
    logits = model(*batch)
    np.testing.assert_allclose(logits.detach(), vectors["logits"], atol=1e-5, rtol=0)
    auxiliary = model.prompts.auxiliary_loss()
    np.testing.assert_allclose(auxiliary.item() / config["loss_alpha"], vectors["aux_loss"], atol=0, rtol=1e-6)
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(vectors["labels"])) + auxiliary
    np.testing.assert_allclose(loss.item(), vectors["loss"], atol=1e-6, rtol=0)
    loss.backward()
    parameters = dict(model.named_parameters())
    assert {our_name(name) for name in config["trainable"]} == set(model.trainable_names())
    for name in config["trainable"]:
        gradient = parameters[our_name(name)].grad
        assert_gradient(gradient.T if name.endswith("_projection.weight") else gradient, vectors[f"grad.{name}"])


def build(sizes=tiny.SIZES, length=6, missing="dummy", **settings):
    """Build a model with a memory of its own."""
    torch.manual_seed(3)
    model = build_model(
        tiny.clip_state(sizes), "aoept", 5, length, 2, backbone_settings={"missing": missing}, **settings
    ).eval()  # fmt: skip
    for tower in model.prompts.towers.values():
        tower.memory.normal_()
    return moved(model)


@pytest.mark.parametrize(
    ("sizes", "length", "missing", "reading", "cases"),
    [
        (tiny.SIZES, 6, "zero", "end", MIXED),
        (tiny.SIZES, 6, "dummy", "end", MIXED),
        (tiny.OTHER, 4, "dummy", "released", MIXED),
        (tiny.OTHER, 2, "zero", "released", [COMPLETE, MISSING_TEXT, MISSING_TEXT]),  # one text has nothing to contrast
    ],
)
def test_a_slow_oracle(sizes, length, missing, reading, cases):
    model, batch = build(sizes, length, missing, reading=reading, memory=5), tiny.batch(cases, sizes)
    both = [(model(*batch), model.prompts.auxiliary_loss()), slow_outputs(model, *batch)]
    assert_same(model, *((logits, logits.pow(2).sum() + auxiliary) for logits, auxiliary in both))


def test_padding_does_not_count_in_the_default_reading():
    model, (image, tokens, cases) = build(), tiny.batch(MIXED)
    logits, longer = model(image, tokens, cases), build()
    first = longer(image[:1], tokens[:1], cases[:1])
    torch.testing.assert_close(first, logits[:1], atol=1e-5, rtol=1e-5)  # whose batch has longer texts


def prepared(model, *batches):
    with torch.no_grad():
        model.prompts.prepare(model, (Inputs(*batch, None) for batch in batches))
    return {name: tower.memory.clone() for name, tower in model.prompts.towers.items()}


def entering(model, image, tokens, case, layer):
    """Return tower -> mean of the tokens of one sample that enter a layer of the backbone without prompts."""
    x, language = {"image": model.image_encoder.embed(image[None])}, model.text_encoder
    count = int(tokens.argmax()) + 1
    x["text"] = language.token_embedding(tokens[None, :count]) + language.positional_embedding[:count]
    for name, tower in (("image", model.image_encoder), ("text", language)):
        for block in tower.transformer.resblocks[:layer]:
            x[name] = block(x[name], name == "text", None, 0, None, None)
    absent = {MISSING_IMAGE: "image", MISSING_TEXT: "text"}.get(int(case))
    return {name: tokens[0].mean(0) for name, tokens in x.items() if name != absent}


@pytest.mark.parametrize("reading", ["end", "released"])
def test_the_memory_of_few_samples_is_their_mean_tokens(reading):
    model, batch = build(memory=7, reading=reading), tiny.batch(MIXED)
    batch[0][batch[2] == MISSING_IMAGE] = torch.nan  # not read
    memory = prepared(model, [part[:2] for part in batch], [part[2:] for part in batch])
    for layer in range(2):
        with torch.no_grad():
            means = [entering(model, *sample, layer) for sample in zip(*batch, strict=True)]
        for name, slots in memory.items():
            wanted = torch.stack([sample[name] for sample in means if name in sample])
            distance = torch.cdist(slots[layer], wanted)
            assert distance.amin(1).max() < 1e-4
            assert distance.amin(0).max() < 1e-4
    assert {f"prompts.towers.{name}.memory" for name in memory} < model.adapter_state_dict().keys()


def test_the_memory_of_many_samples_is_their_k_means():
    model, batch = build(memory=3), tiny.batch([COMPLETE] * 24)
    memory = prepared(model, batch)
    with torch.no_grad():
        x = torch.stack([entering(model, *sample, 1)["image"] for sample in zip(*batch, strict=True)])
    nearest = torch.cdist(x, memory["image"][1]).argmin(1)
    for slot in range(3):  # each centre is the mean of the samples nearest to it
        torch.testing.assert_close(memory["image"][1, slot], x[nearest == slot].mean(0), atol=1e-4, rtol=0)
    assert all(torch.equal(again, memory[name]) for name, again in prepared(model, batch).items())


def test_without_any_text_the_memory_of_texts_stays_empty():
    model = build_model(tiny.clip_state(), "aoept", 5, 6, 2, memory=4)
    memory = prepared(model, tiny.batch([MISSING_TEXT] * 3))
    assert (memory["text"] == 0).all()
    assert model(*tiny.batch(MIXED)).isfinite().all()


@pytest.mark.parametrize("cases", [MIXED, [MISSING_IMAGE] * 2, [MISSING_TEXT] * 2])
@pytest.mark.parametrize("missing", ["zero", "dummy"])
def test_it_trains_on_coca(cases, missing):
    model, batch = test_coca.build("aoept", backbone_settings={"missing": missing}), test_coca.batch(cases)
    prepared(model, batch)
    with_auxiliary(model, model(*batch).sum()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_released_reading_is_refused_on_coca():
    with pytest.raises(UserError, match="reading=released"):
        test_coca.build("aoept", reading="released")


def test_training_and_testing_through_the_command_line(settings, arrow_folder, tmp_path, monkeypatch):
    common = ["with", "task_finetune_mmimdb", *settings, f"log_dir={tmp_path}", "exp_name=run"]
    common += ["prompt_type=aoept", "aoept.memory=4", "clip.missing=dummy", "clip.placeholder=black"]
    call(*common, "max_epoch=1")
    (trained,) = tmp_path.iterdir()
    best = find_checkpoint(trained, "best")
    state = torch.load(best, weights_only=True)["state_dict"]
    assert all(state[f"prompts.towers.{name}.memory"].abs().amax(2).min() > 0 for name in ("image", "text"))
    loaded = ["with", "task_finetune_mmimdb", *settings, f"load_path={trained}"]
    call(*loaded, "test_only=True", "test_type=text", "test_ratio=0.5")
    call("sweep", *loaded, "sweep.types=['text']", "sweep.ratios=[0.5]")
    (tested,), (swept,) = trained.rglob("test_*/**/metrics.json"), trained.rglob("sweep.csv")
    assert json.loads(tested.read_text())["test/F1_Macro"] == pytest.approx(pd.read_csv(swept)["F1_Macro"].item())
    write_tables(tmp_path, films(arrow_folder, tmp_path))
    monkeypatch.chdir(tmp_path)
    call("predict", "with", f"load_path={trained}", "num_gpus=0", "predict.input=films.csv")
    (predicted,) = trained.rglob("predictions.csv")
    assert len(pd.read_csv(predicted)) == 12


@pytest.mark.parametrize(("length", "depth", "millions"), [(6, 4, 1.04), (16, 6, 1.64)])
def test_parameter_counts_on_vit_b_16(length, depth, millions):
    """Those of the release's settings and of the paper's, own and shared prompts of this length each."""
    method = AOEPT(PromptConfig(tiny.VIT_B_16, 2 * length, depth), AOEPT.Settings())
    assert round(sum(parameter.numel() for parameter in method.parameters()) / 1e6, 2) == millions
