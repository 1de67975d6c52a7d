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
EPSILON = 1e-8
HEAD = "classifier."  # in the name of every head's parameters, a method's own too


def schedule_steps(settings: OptimizerSettings, steps: int, full_steps: int) -> int:
    """Return the number of optimizer steps over which the schedule runs.

    Faithful: with ``schedule_length="floor"``, as in the released code, all batches of a run are divided by the
    accumulation and the rest is dropped, though each epoch ends with a step of its own; the last steps run at rate 0.

    Args:
        settings: optimizer and schedule settings.
        steps: steps of ``max_epoch`` epochs.
        full_steps: batches of the whole run divided by those of one step.
    """
    if settings.schedule_length == "floor":
        steps = min(steps, full_steps)
    return min(steps, settings.max_steps or steps)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Sort the trainable parameters into the four published groups: decay or not, head or not.

    Faithful: norms and prompts decay, since the released list of exceptions misses their names; only
    biases do not.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        head, decay = HEAD in name, not name.endswith("bias")
        learning_rate = settings.learning_rate * (settings.lr_mult if head else 1)
        empty = {"params": [], "names": [], "lr": learning_rate, "weight_decay": settings.weight_decay * decay}
        group = groups.setdefault((head, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, total_steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Build the optimizer and its schedule: linear warm-up from zero, then polynomial decay.

    Args:
        model: its trainable parameters are selected by name.
        settings: optimizer and schedule settings.
        total_steps: optimizer steps of the whole training run.
    """
    warmup = settings.warmup_steps
    groups = parameter_groups(model.named_parameters(), settings)
    optimizer_class, betas = OPTIMIZERS[settings.optim_type]
    optimizer = optimizer_class(groups, lr=settings.learning_rate, betas=betas, eps=EPSILON)
    schedule = get_polynomial_decay_schedule_with_warmup(
        optimizer,
        num_warmup_steps=int(warmup * total_steps if warmup <= 1 else warmup),
        num_training_steps=total_steps,
        lr_end=settings.end_lr,
        power=settings.decay_power,
    )
    return optimizer, schedule
