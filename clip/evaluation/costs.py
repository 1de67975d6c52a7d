"""Parameters and FLOPs of every method, counted on torch's ``meta`` device without weights.

Attention runs in its plain form there, which the FLOP counter knows.
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
from clip.modules.objectives import resolve_task
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

BASELINE = "none"
PARTS = ("prompts", "generators", "unfrozen", "head")
LAYER_PARAMETERS = ("weight", "bias", "scale", "shift")  # names of the parameters of a layer
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
    """Return the floating-point operations of all matrix products; one multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def cost(sizes: Sizes, prompt_type: str, num_classes: int, *shape: int, **settings: Any) -> dict[str, Any]:
    """Count one method; arguments as in ``init_model``.

    Returns:
        method; the parameters of each of ``PARTS``; total, their sum; share, all but the head as a
        share of the backbone; forward_flops of one complete pair with a text of full length;
        step_flops, of its forward and backward pass.
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


def print_costs(config: BaseConfig) -> None:
    """Print parameters and FLOPs of every method for the task and backbone of a run; the costs command.

    Args:
        config: settings; weights are only read for a backbone that is not one of ``PUBLISHED_SIZES``.
    """
    task = resolve_task(config.task, DATASETS[config.task].label_metadata(Path(config.data_root)))
    sizes = PUBLISHED_SIZES.get(config.vit)
    if sizes is None:
        load = BACKBONES[config.backbone].load
        sizes = load(config.vit, config.activation, config.backbone_settings, config.task).sizes
    rows = []
    for name in PROMPT_TYPES:
        settings = dict(getattr(config, name, {}))
        try:
            rows.append(cost(sizes, name, task.num_classes, config.prompt_length, config.prompt_depth, **settings))
        except UserError as error:
            print(f"{name}: {error}")
    base = next(row for row in rows if row["method"] == BASELINE)
    table = pd.DataFrame(rows)
    table["share"] = table["share"].map("{:.2%}".format)
    for kind in ("forward", "step"):
        flops = table.pop(f"{kind}_flops")
        table[f"{kind} GFLOPs"] = (flops / 1e9).round(1)
        table[f"{kind} / {BASELINE}"] = (flops / base[f"{kind}_flops"]).round(2)
    table[[*PARTS, "total"]] = table[[*PARTS, "total"]].map("{:,}".format)
    print(f"{config.vit}, {task.num_classes} classes, prompt_length={config.prompt_length}")
    print(table.to_string(index=False))
