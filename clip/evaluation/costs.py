"""What each method costs: what trains, and the multiplications of a step. No weights are needed.

Models are built on torch's ``meta`` device, which has shapes and no numbers, so that ViT-B/16 is
counted in a second and attention in its plain form, which the counter knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.factory import init_model
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import Sizes

BASELINE = "none"
PARTS = ("prompts", "generators", "unfrozen", "head")
LAYER_ENDINGS = ("weight", "bias", "scale", "shift")  # what the parameters of a layer are called


def part_of(name: str) -> str:
    """Tell which of ``PARTS`` a trainable parameter belongs to, by its name in the model.

    Parameters of a layer inside a method make prompts (generators); all else of it is prompts.
    """
    owner = name.partition(".")[0]
    if owner == "prompts":
        return "generators" if name.endswith(LAYER_ENDINGS) else "prompts"
    return "head" if owner == "classifier" else "unfrozen"


def by_part(trainable: Mapping[str, int]) -> dict[str, int]:
    """Sum the counts of a run's ``trainable`` (name -> parameters) over each of ``PARTS``."""
    sums = dict.fromkeys(PARTS, 0)
    for name, count in trainable.items():
        sums[part_of(name)] += count
    return sums


def shape_model(sizes: Sizes, prompt_type: str, num_classes: int, **settings: Any) -> PromptedModel:
    """Build a model that has shapes and no numbers; arguments as in ``model.init_model``."""
    with torch.device("meta"):
        return init_model(sizes, prompt_type, num_classes, **settings)


def trainable(model: PromptedModel) -> dict[str, int]:
    """Count every parameter that trains, by name."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {name: sizes[name] for name in model.trainable_names()}


def backbone(model: PromptedModel) -> int:
    """Count the parameters of the backbone."""
    towers = (model.get_submodule(name) for name in model.tower_names)
    return sum(p.numel() for tower in towers for p in tower.parameters())


def count_flops(call: Callable[[], Any]) -> int:
    """Count the floating-point operations of matrix products; one multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Cost:
    """What one method costs.

    Attributes:
        method: key of ``PROMPT_TYPES``.
        prompts: parameters that are prompts.
        generators: parameters of the layers that make or use prompts.
        unfrozen: parameters of the backbone that train too.
        head: parameters of the classifier.
        total: of these four.
        share: of the backbone, without the head, which every method has.
        forward_flops: of one complete pair, its text at full length.
        step_flops: forward and backward of that pair.
    """

    method: str
    prompts: int
    generators: int
    unfrozen: int
    head: int
    total: int
    share: float
    forward_flops: int
    step_flops: int


def cost(sizes: Sizes, prompt_type: str, num_classes: int, **settings: Any) -> Cost:
    """Count one method; arguments as in ``shape_model``."""
    model = shape_model(sizes, prompt_type, num_classes, **settings)
    parts, batch = by_part(trainable(model)), model.example_inputs(sizes, "meta")
    total = sum(parts.values())
    return Cost(
        prompt_type,
        **parts,
        total=total,
        share=(total - parts["head"]) / backbone(model),
        forward_flops=count_flops(lambda: model(*batch)),
        step_flops=count_flops(lambda: model(*batch).sum().backward()),
    )


def costs(sizes: Sizes, num_classes: int) -> list[dict[str, Any]]:
    """Count every method, the FLOPs also relative to the baseline's."""
    counted = [cost(sizes, name, num_classes) for name in PROMPT_TYPES]
    base = next(row for row in counted if row.method == BASELINE)
    return [
        asdict(row)
        | {
            "forward_ratio": row.forward_flops / base.forward_flops,
            "step_ratio": row.step_flops / base.step_flops,
        }
        for row in counted
    ]


def claims(sizes: ClipSizes, num_classes: int) -> list[dict[str, Any]]:
    """Put the paper's claims about DCP (section 4.1, Table 5, README) beside what is counted.

    Returns:
        Rows of "claim", "paper" (as printed), "counted" (in the same digits) and "agrees".
    """

    def added(length: int = 36, **settings: Any) -> tuple[int, int, int]:
        model = shape_model(sizes, "dcp", num_classes, prompt_length=length, **settings)
        parts = by_part(trainable(model))
        own = parts["prompts"] + parts["generators"]
        return own, own + parts["unfrozen"], backbone(model)

    own, unfrozen, whole = added()
    printed, *_ = added(formulas="paper", unfreeze=())
    coarse = replace(sizes, patch=2 * sizes.patch, grid=sizes.grid // 2)
    coarse_whole = backbone(shape_model(coarse, BASELINE, num_classes))
    slope = (added(60)[0] - added(12)[0]) / 4
    equal = (
        ("the backbone", "151M", _millions(whole, 0)),
        ("a backbone with patches twice as wide (ViT-B/32)", "151M", _millions(coarse_whole, 0)),
        ("prompts and generators", "4.0M", _millions(own, 1)),
        ("prompts and generators, with the unfrozen parts", "4.0M", _millions(unfrozen, 1)),
        ("prompts and generators under the printed formulas", "4.0M", _millions(printed, 1)),
        ("12 more prompt tokens (Table 5)", "1.2M", f"{slope / 1e6:.2g}M"),
        ("4.0M as a share of 151M", "2.4 %", f"{100 * 4.0 / 151:.1f} %"),
        ("prompts and generators, as a share", "2.4 %", f"{100 * own / whole:.1f} %"),
    )
    rows = [{"claim": claim, "paper": paper, "counted": counted, "agrees": paper == counted}
            for claim, paper, counted in equal]  # fmt: skip
    below = {
        "claim": "all that is added or unfrozen, as a share",
        "paper": "< 4 %",
        "counted": f"{100 * unfrozen / whole:.1f} %",
        "agrees": unfrozen / whole < 0.04,
    }
    return [*rows, below]


def _millions(count: float, digits: int) -> str:
    return f"{count / 1e6:.{digits}f}M"
