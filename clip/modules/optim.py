"""Parameter groups, optimizer and schedule, as published (paper, section 4.1; released code)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_polynomial_decay_schedule_with_warmup

from clip.config import OptimizerSettings

OPTIMIZERS = {  # name -> class, betas: the released code's, and torch's own for the paper's "Adam"
    "adamw": (torch.optim.AdamW, (0.9, 0.98)),
    "adam": (torch.optim.Adam, (0.9, 0.999)),
}


def schedule_steps(settings: OptimizerSettings, steps: int, full_steps: int) -> int:
    """Return the number of optimizer steps over which the schedule runs.

    Faithful: with ``schedule_length="floor"``, as in the released code, all batches of a run are divided by the
    accumulation and the rest is dropped, though each epoch ends with a step of its own; the last steps run at rate 0.
    These are the ``full_steps``; ``steps`` are those of ``max_epoch`` epochs.
    """
    return min(steps, full_steps) if settings.schedule_length == "floor" else steps


def count_warmup_steps(settings: OptimizerSettings, total_steps: int) -> int:
    """Return the number of optimizer steps of the warm-up."""
    warmup = settings.warmup_steps
    return int(warmup * total_steps if warmup <= 1 else warmup)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Sort the trainable parameters into the four published groups: decay or not, head or not.

    Faithful: norms and prompts decay, since the released list of exceptions misses their names; only
    biases do not.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            head, decay = "classifier." in name, not name.endswith("bias")  # the head of a method, too
            rate = settings.learning_rate * (settings.lr_mult if head else 1)
            empty = {"params": [], "names": [], "lr": rate, "weight_decay": settings.weight_decay * decay}
            group = groups.setdefault((head, decay), empty)
            group["params"].append(parameter)
            group["names"].append(name)
    return list(groups.values())


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, total_steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Build the optimizer and its schedule of ``total_steps``: linear warm-up from zero, then polynomial decay."""
    warmup, groups = count_warmup_steps(settings, total_steps), parameter_groups(model.named_parameters(), settings)
    optimizer_class, betas = OPTIMIZERS[settings.optim_type]
    optimizer = optimizer_class(groups, lr=settings.learning_rate, betas=betas, eps=1e-8)
    schedule = get_polynomial_decay_schedule_with_warmup(
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=max(total_steps, warmup + 1),  # not equal: the decay would divide by zero
        lr_end=settings.end_lr,
        power=settings.decay_power,
    )
    return optimizer, schedule
