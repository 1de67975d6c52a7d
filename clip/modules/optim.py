"""Parameter groups, optimiser and schedule, as published (paper, section 4.1; released code)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_polynomial_decay_schedule_with_warmup

OPTIMIZERS = {  # name -> class, betas: the released code's, and torch's own for the paper's "Adam"
    "adamw": (torch.optim.AdamW, (0.9, 0.98)),
    "adam": (torch.optim.Adam, (0.9, 0.999)),
}
SCHEDULE_LENGTHS = ("exact", "floor")
EPSILON = 1e-8
HEAD = "classifier."  # in the name of every head's parameters, a method's own too


@dataclass(frozen=True)
class OptimSettings:
    """How the parameters move.

    Attributes:
        optim_type: a key of ``OPTIMIZERS``.
        learning_rate: at the end of the warm-up.
        weight_decay: of everything but biases.
        schedule_length: "exact", or "floor" to count whole groups of accumulated batches only.
        lr_mult: factor on the learning rate of the head.
        warmup_steps: a share of all steps, or a number of steps if above 1.
        end_lr: learning rate at the last step.
        decay_power: power of the polynomial decay; 1 is linear.
    """

    optim_type: str = "adamw"
    learning_rate: float = 1e-2
    weight_decay: float = 2e-2
    schedule_length: str = "exact"
    lr_mult: float = 1.0
    warmup_steps: float = 0.1
    end_lr: float = 0.0
    decay_power: float = 1.0

    @classmethod
    def from_config(cls, config: dict) -> "OptimSettings":
        """Read the settings that ``config_rules.validate`` has checked."""
        return cls(**{key: getattr(config, key) for key in cls.__dataclass_fields__})

    def total_steps(self, exact: int, batches: int, accumulated: int) -> int:
        """Give the optimiser steps over which the schedule runs.

        Faithful: the released code divides all batches of a run by the accumulation and drops the
        rest, though each epoch ends with a step of its own; the last steps run at rate 0.

        Args:
            exact: steps that the run will take.
            batches: of the whole run.
            accumulated: batches a step.
        """
        return exact if self.schedule_length == "exact" else min(exact, batches // accumulated)

    def warmup(self, total: int) -> int:
        """Give the number of warm-up steps among ``total``."""
        share = self.warmup_steps <= 1
        return int(self.warmup_steps * total) if share else int(self.warmup_steps)


def decays(name: str) -> bool:
    """Say whether a parameter decays: all but biases.

    Faithful: norms and prompts decay, since the released list of exceptions misses their names.
    """
    return not name.endswith("bias")


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings) -> list[dict]:
    """Sort the trainable parameters into the four published groups: decay or not, head or not."""
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        head, decay = HEAD in name, decays(name)
        group = groups.setdefault(
            (head, decay),
            {
                "params": [],
                "names": [],
                "lr": settings.learning_rate * (settings.lr_mult if head else 1),
                "weight_decay": settings.weight_decay if decay else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(
    model: nn.Module, settings: OptimSettings, total_steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Make the optimiser and its schedule: linear warm-up from zero, then polynomial decay.

    Args:
        model: its trainable parameters are taken by name.
        settings: see ``OptimSettings``.
        total_steps: optimiser steps of the whole training.
    """
    groups = parameter_groups(model.named_parameters(), settings)
    optimizer_class, betas = OPTIMIZERS[settings.optim_type]
    optimizer = optimizer_class(groups, lr=settings.learning_rate, betas=betas, eps=EPSILON)
    schedule = get_polynomial_decay_schedule_with_warmup(
        optimizer,
        num_warmup_steps=settings.warmup(total_steps),
        num_training_steps=total_steps,
        lr_end=settings.end_lr,
        power=settings.decay_power,
    )
    return optimizer, schedule
