"""Count parameters and FLOPs of every method on the ``meta`` device, without weights.

On this device, attention uses the math kernel, whose operations the FLOP counter supports.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from clip.config import BaseConfig
from clip.datasets import DATASETS
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.backbones.registry import BACKBONES
from clip.modules.factory import init_model
from clip.modules.objectives import TASKS, resolve_task
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

BASELINE = "none"
PARTS = ("prompts", "generators", "unfrozen", "head")
LAYER_PARAMETERS = ("weight", "bias", "scale", "shift")  # parameter names of layers, in contrast to prompts
PUBLISHED_SIZES = {  # of OpenAI's CLIPs
    "ViT-B/32": ClipSizes(768, 12, 32, 7, 512, 12, 77, 49408, 512),
    "ViT-B/16": ClipSizes(768, 12, 16, 14, 512, 12, 77, 49408, 512),
    "ViT-L/14": ClipSizes(1024, 24, 14, 16, 768, 12, 77, 49408, 768),
    "ViT-L/14@336px": ClipSizes(1024, 24, 14, 24, 768, 12, 77, 49408, 768),
}


def count_by_part(trainable: Mapping[str, int]) -> dict[str, int]:
    """Sum the sizes of trainable parameters (name -> count) over each of ``PARTS``.

    Parameters of a layer inside a method generate prompts; all other parameters of a method are prompts.
    """
    sums = dict.fromkeys(PARTS, 0)
    for name, count in trainable.items():
        owner = name.partition(".")[0]
        inside = "generators" if name.endswith(LAYER_PARAMETERS) else "prompts"
        sums[{"prompts": inside, "classifier": "head"}.get(owner, "unfrozen")] += count
    return sums


def shape_model(sizes: Sizes, prompt_type: str, num_classes: int, *shape: int, **settings: Any) -> PromptedModel:
    """Build a model without weights on the meta device; arguments as in ``init_model``."""
    with torch.device("meta"):
        return init_model(sizes, prompt_type, num_classes, *shape, **settings)


def trainable(model: PromptedModel) -> dict[str, int]:
    """Return the size of every trainable parameter, by name."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {name: sizes[name] for name in model.trainable_names()}


def backbone(model: PromptedModel) -> int:
    """Return the number of parameters of the backbone."""
    return sum(p.numel() for name in model.tower_names for p in model.get_submodule(name).parameters())


def count_flops(call: Callable[[], Any]) -> int:
    """Return the FLOPs of all matrix products; one multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def cost(sizes: Sizes, prompt_type: str, num_classes: int, *shape: int, **settings: Any) -> dict[str, Any]:
    """Count the parameters and FLOPs of one method; arguments as in ``init_model``.

    Returns:
        method; the parameters of each of ``PARTS``; total, their sum; share, all but the head
        relative to the backbone; forward_flops, for one complete pair with a text of full length;
        step_flops, for its forward and backward pass.
    """
    model = shape_model(sizes, prompt_type, num_classes, *shape, **settings)
    parts, batch = count_by_part(trainable(model)), model.example_inputs(sizes, "meta")
    total = sum(parts.values())
    flops = {
        "forward_flops": count_flops(lambda: model(*batch)),
        "step_flops": count_flops(lambda: model(*batch).sum().backward()),
    }
    share = (total - parts["head"]) / backbone(model)
    return {"method": prompt_type, **parts, "total": total, "share": share, **flops}


def costs(sizes: Sizes, num_classes: int, *shape: int, **settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the parameters and FLOPs of every method; print and omit those that do not support the sizes or shape.

    Args:
        sizes: sizes of the backbone.
        num_classes: outputs of the head.
        shape: prompt length and depth.
        settings: method -> its own settings.

    Returns:
        Rows of ``cost`` with forward_ratio and step_ratio, the FLOPs relative to the linear probe's.
    """
    rows = []
    for name in PROMPT_TYPES:
        try:
            rows.append(cost(sizes, name, num_classes, *shape, **settings.get(name, {})))
        except UserError as error:
            print(f"{name}: {error}")
    base = next(row for row in rows if row["method"] == BASELINE)
    ratios = {f"{kind}_ratio": f"{kind}_flops" for kind in ("forward", "step")}
    return [row | {ratio: row[flops] / base[flops] for ratio, flops in ratios.items()} for row in rows]


def print_costs(config: BaseConfig) -> None:
    """Print parameters and FLOPs of every method for the task and backbone of a run; the costs command.

    Args:
        config: settings; weights are only read for a backbone that is not one of ``PUBLISHED_SIZES``.
    """
    root = Path(config.data_root)
    task = TASKS[config.task] or resolve_task(config.task, DATASETS[config.task].label_metadata(root))
    sizes = PUBLISHED_SIZES.get(config.vit)
    if sizes is None:
        load = BACKBONES[config.backbone].load
        sizes = load(config.vit, config.activation, config.backbone_settings, config.task).sizes
    settings = {name: dict(getattr(config, name, {})) for name in PROMPT_TYPES}
    table = pd.DataFrame(costs(sizes, task.num_classes, config.prompt_length, config.prompt_depth, **settings))
    counts, flops, ratios = [*PARTS, "total"], ["forward_flops", "step_flops"], ["forward_ratio", "step_ratio"]
    table[counts] = table[counts].map("{:,}".format)
    table["share"] = table["share"].map("{:.2%}".format)
    table[flops] = (table[flops] / 1e9).round(1)
    table[ratios] = table[ratios].round(2)
    print(f"{config.vit}, {task.num_classes} classes, prompt_length={config.prompt_length}; FLOPs in units of 10^9")
    print(table.to_string(index=False))
