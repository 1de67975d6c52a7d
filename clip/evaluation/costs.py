"""Count parameters and FLOPs of every method on the ``meta`` device, without weights.

On this device, attention uses the math kernel, whose operations the FLOP counter supports.
"""

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
from clip.modules.prompted_coca import CocaSizes
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

PARTS = ("prompts", "generators", "unfrozen", "head")
PUBLISHED_SIZES = {  # of OpenAI's CLIPs and open_clip's CoCa
    "CoCa-ViT-B/32": CocaSizes(768, 12, 32, 7, 512, 12, 76, 49408, 512),
    "ViT-B/32": ClipSizes(768, 12, 32, 7, 512, 12, 77, 49408, 512),
    "ViT-B/16": ClipSizes(768, 12, 16, 14, 512, 12, 77, 49408, 512),
    "ViT-L/14": ClipSizes(1024, 24, 14, 16, 768, 12, 77, 49408, 768),
    "ViT-L/14@336px": ClipSizes(1024, 24, 14, 24, 768, 12, 77, 49408, 768),
}


def cost(sizes: Sizes, prompt_type: str, num_classes: int, *shape: int, **settings: Any) -> dict[str, Any]:
    """Count the parameters and FLOPs of one method; arguments as in ``init_model``.

    Returns:
        method; the trainable parameters of each of ``PARTS``; total, their sum; backbone, all its parameters; share,
        all but the head as a share of the backbone; forward_flops, the floating-point operations of all matrix
        products (one multiply-add is two) of one complete pair with a text of full length; step_flops, of its forward
        and backward pass.
    """
    with torch.device("meta"):
        model = init_model(sizes, prompt_type, num_classes, *shape, **settings)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts = dict.fromkeys(PARTS, 0)
    for name in model.trainable_names():
        # Parameters of a layer inside a method generate prompts; all other parameters of a method are prompts.
        inside = "generators" if name.endswith(("weight", "bias", "scale", "shift")) else "prompts"
        parts[{"prompts": inside, "classifier": "head"}.get(name.partition(".")[0], "unfrozen")] += counts[name]
    total, batch = sum(parts.values()), model.example_inputs(sizes, "meta")
    backbone = sum(count for name, count in counts.items() if name.partition(".")[0] in model.TOWERS)
    row = {"method": prompt_type, **parts, "total": total, "backbone": backbone}
    row["share"] = (total - parts["head"]) / backbone
    with FlopCounterMode(display=False) as forward:
        output = model(*batch)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    flops = forward.get_total_flops()
    return row | {"forward_flops": flops, "step_flops": flops + backward.get_total_flops()}


def print_costs(config: BaseConfig) -> None:
    """Print parameters and FLOPs of every method that fits the task and backbone of a run; the costs command.

    Weights are only read for a backbone that is not one of ``PUBLISHED_SIZES``.
    """
    task = TASKS[config.task] or resolve_task(config.task, DATASETS[config.task].label_metadata(Path(config.data_root)))
    sizes = PUBLISHED_SIZES.get(config.vit)
    if sizes is None:
        load = BACKBONES[config.backbone].load
        sizes = load(config.vit, config.activation, config.backbone_settings, config.task).sizes
    shape, rows = (task.num_classes, config.prompt_length, config.prompt_depth), []
    for name in PROMPT_TYPES:
        try:
            rows.append(cost(sizes, name, *shape, **dict(getattr(config, name, {}))))
        except UserError as error:
            print(f"{name}: {error}")
    table = pd.DataFrame(rows).drop(columns="backbone")
    formats = dict.fromkeys([*PARTS, "total"], "{:,}".format) | {"share": "{:.2%}".format}
    formats |= dict.fromkeys(["forward_flops", "step_flops"], lambda flops: f"{flops / 1e9:.1f}")
    print(f"{config.vit}, {task.num_classes} classes, prompt_length={config.prompt_length}; FLOPs in units of 10^9")
    print(table.to_string(index=False, formatters=formats))
