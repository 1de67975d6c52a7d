"""Both backbones, method by method: FLOPs, time and memory of a training step; ViLT's economies.

    python -m benchmarks.backbones

Random weights of ViT-B/16 and of ViLT-B/32, images of 224x224 and 384x384, texts about as long as
MM-IMDb's plots, batches of 4 with about 70 % of the samples incomplete. A method and the baseline
of the same backbone run in turn on the same batches; each row has a process of its own. Seconds are
processor time of one thread, which other work on the machine hardly changes.
"""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16, batches
from benchmarks.step import RATIO, resident, train_step
from clip.evaluation.costs import BASELINE, count_flops, shape_model, trainable
from clip.modules.backbones.vilt_convert import ViltSizes
from clip.modules.factory import MODELS, init_model
from clip.modules.prompted_model import Inputs, PromptedModel
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import Sizes

BATCH = 4
SAMPLES, FEW = 12, 4  # of a method, 8 of them incomplete; of an economy, 3
VILT_B_32 = ViltSizes(width=768, layers=12, patch=32, grid=12, context=1024, vocabulary=30522)
SIZES: dict[str, Sizes] = {"clip": VIT_B_16, "vilt": VILT_B_32}  # by backbone
DROP = {"drop_missing": True}


class Form(NamedTuple):
    """A ViLT without some of its economies.

    Attributes:
        spoil: changes the model's blocks or prompts in place.
        pad: texts are padded to all positions.
        settings: of the backbone.
    """

    spoil: tuple[Callable[[PromptedModel], None], ...] = ()
    pad: bool = False
    settings: dict[str, Any] = {}


def random_model(backbone: str, method: str, settings: dict[str, Any]) -> PromptedModel:
    """Build a model with random weights."""
    torch.manual_seed(0)
    return init_model(SIZES[backbone], method, CLASSES, backbone_settings=settings)


def pairs(backbone: str, samples: int = SAMPLES, pad: bool = False) -> list[Inputs]:
    """Make batches as the loader gives them."""
    sizes = SIZES[backbone]
    out = []
    for image, tokens, cases in batches("both", RATIO, samples, BATCH, sizes.image_size):
        ids = torch.where(tokens < sizes.vocabulary, tokens, sizes.vocabulary - 1)
        rows = [{"image": a, "tokens": b, "missing_type": c}
                for a, b, c in zip(image, ids, cases, strict=True)]  # fmt: skip
        batch = MODELS[backbone].collate(rows)
        pair = Inputs(*(batch[field] for field in Inputs._fields))
        out.append(padded(pair, sizes.context) if pad else pair)
    return out


def padded(pair: Inputs, positions: int) -> Inputs:
    """Pad the texts of a ViLT's batch to all its positions."""
    more = positions - pair.tokens.shape[1]
    tokens = torch.nn.functional.pad(pair.tokens, (0, more))
    return pair._replace(tokens=tokens, present=pair.present._replace(positions=positions))


def step_flops(model: PromptedModel, made: list[Inputs]) -> int:
    """Count forward and backward of these batches; the model is on the meta device."""
    shapes = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), made)
    return sum(count_flops(lambda pair=pair: train_step(model, pair)) for pair in shapes)


def in_turn(models: dict[str, tuple[PromptedModel, list[Inputs]]]) -> tuple[dict, dict]:
    """Time training steps of each model on its batches, one after the other, in one thread.

    Returns:
        Mean seconds, and the logits of the last batch, by name.
    """
    torch.set_num_threads(1)
    spent, logits = dict.fromkeys(models, 0.0), {}
    for model, made in models.values():
        train_step(model, made[0])  # the first call allocates
    for turn in range(len(next(iter(models.values()))[1])):
        for name, (model, made) in models.items():
            start = time.process_time()
            logits[name] = train_step(model, made[turn])
            spent[name] += (time.process_time() - start) / len(made)
    return spent, logits


def peak(model: PromptedModel, pair: Inputs) -> float:
    """Measure what a first training step adds to the peak memory of this process, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    before = resident("VmRSS")
    train_step(model, pair)
    return (resident("VmHWM") - before) / 1024


def method_row(backbone: str, method: str) -> dict[str, Any]:
    """Measure one method against the baseline."""
    made, settings = pairs(backbone), {}
    model = random_model(backbone, method, settings)
    memory = peak(model, made[0])
    base = random_model(backbone, BASELINE, settings)
    spent, _ = in_turn({"baseline": (base, made), "method": (model, made)})
    shapes = [shape_model(SIZES[backbone], name, CLASSES) for name in (method, BASELINE)]
    flops, base_flops = (step_flops(shape, made) for shape in shapes)
    return {"backbone": backbone, "method": method, "trains": sum(trainable(model).values()),
            "step_gflop": flops / len(made) / 1e9, "flop_ratio": flops / base_flops,
            "seconds": spent["method"], "ratio": spent["method"] / spent["baseline"],
            "peak_mb": memory}  # fmt: skip


def prompts_by_sample(model: PromptedModel) -> None:
    """Make DCP's prompts anew for each sample instead of once for each of the three cases."""
    method, own, made = model.prompts, model.prompts.select, []

    def each(name: str, cases: dict, tokens: Tensor, case: Tensor, mask: Tensor) -> list:
        if name == next(iter(cases)):
            made[:] = [method.prompts_by_case() for _ in tokens]
        rows = [own(name, here, tokens[i : i + 1], case[i : i + 1], mask[i : i + 1]) for i, here in enumerate(made)]
        return [torch.cat(layer) for layer in zip(*rows, strict=True)]

    method.select = each


def whole_last_block(model: PromptedModel) -> None:
    """Compute all outputs of the last block and read one."""
    last = model.stream.transformer.resblocks[-1]
    last.pool = lambda x, position, causal, prefix, mask: last(x, causal, prefix, 0, mask)[
        torch.arange(len(x), device=x.device), position
    ]


def unread_outputs(model: PromptedModel) -> None:
    """Compute the outputs that the next layer's prompts replace."""
    for block in model.stream.transformer.resblocks:

        def whole(x, causal, prefix, drop_first, mask, own=block.forward):  # noqa: ANN001, ANN202
            return own(x, causal, prefix, 0, mask)[:, drop_first:]

        block.forward = whole


SPOILS = (prompts_by_sample, whole_last_block, unread_outputs)
FORMS = {  # what is left out; DCP
    "prompts made once for each case": Form((prompts_by_sample,)),
    "one query in the last block": Form((whole_last_block,)),
    "no outputs that nobody reads": Form((unread_outputs,)),
    "padding cut": Form(pad=True),
    "all four": Form(SPOILS, pad=True),
    "none, but drop_missing=True": Form(settings=DROP),  # other numbers, less work
}


def form_row(left_out: str) -> dict[str, Any]:
    """Measure ViLT without an economy against ViLT with all."""
    backbone, form = "vilt", FORMS[left_out]
    made = {"ours": pairs(backbone, FEW), "form": pairs(backbone, FEW, form.pad)}
    settings = {"ours": {}, "form": form.settings}
    models = {name: random_model(backbone, "dcp", settings[name]) for name in made}
    shapes = {name: shape_model(SIZES[backbone], "dcp", CLASSES, backbone_settings=settings[name])
              for name in made}  # fmt: skip
    for spoil in form.spoil:
        spoil(models["form"])
        spoil(shapes["form"])
    memory = peak(models["form"], made["form"][0])
    spent, logits = in_turn({name: (models[name], made[name]) for name in made})
    flops = {name: step_flops(shapes[name], made[name]) for name in made}
    return {"left_out": left_out, "flop_ratio": flops["form"] / flops["ours"],
            "seconds": spent["form"], "ratio": spent["form"] / spent["ours"], "peak_mb": memory,
            "largest_difference": float((logits["form"] - logits["ours"]).abs().max())}  # fmt: skip


def main() -> None:
    """Measure everything and write results/backbones.json."""
    jobs = [(backbone, method) for backbone in SIZES for method in PROMPT_TYPES]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        methods = pool.starmap(method_row, jobs, chunksize=1)
        economies = pool.map(form_row, FORMS, chunksize=1)
    torch.set_num_threads(1)  # as each row did
    machine.write("backbones", {"methods": methods, "economies": economies})


if __name__ == "__main__":
    main()
