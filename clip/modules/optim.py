"""Parameter groups, optimizer and schedule, as published (paper, section 4.1; released code)."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_polynomial_decay_schedule_with_warmup

from clip.utils.settings import Settings

OPTIMIZERS = {  # name -> class, betas: the released code's, and torch's own for the paper's "Adam"
    "adamw": (torch.optim.AdamW, (0.9, 0.98)),
    "adam": (torch.optim.Adam, (0.9, 0.999)),
}
SCHEDULE_LENGTHS = ("exact", "floor")
EPSILON = 1e-8
HEAD = "classifier."  # in the name of every head's parameters, a method's own too


class OptimSettings(Settings):
    """Optimizer and schedule settings."""

    optim_type: Literal["adamw", "adam"] = Field("adamw", description="optimizer, a key of OPTIMIZERS")
    learning_rate: float = Field(1e-2, gt=0, allow_inf_nan=False, description="learning rate after the warm-up")
    weight_decay: float = Field(2e-2, ge=0, allow_inf_nan=False, description="weight decay of all but biases")
    schedule_length: Literal["exact", "floor"] = Field("exact", description="floor: without partial accumulations")
    lr_mult: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on the learning rate of the head")
    warmup_steps: float = Field(0.1, ge=0, allow_inf_nan=False, description="share of all steps; steps if above 1")
    end_lr: float = Field(0.0, ge=0, allow_inf_nan=False, description="learning rate at the last step")
    decay_power: float = Field(1.0, gt=0, allow_inf_nan=False, description="power of the polynomial decay; 1 is linear")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "OptimSettings":
        """Read the settings from a config."""
        return cls(**{key: config[key] for key in cls.model_fields})

    def total_steps(self, exact: int, batches: int, accumulated: int) -> int:
        """Return the number of optimizer steps over which the schedule runs.

        Faithful: the released code divides all batches of a run by the accumulation and drops the
        rest, though each epoch ends with a step of its own; the last steps run at rate 0.

        Args:
            exact: steps that the run will take.
            batches: batches of the whole run.
            accumulated: batches per step.
        """
        return exact if self.schedule_length == "exact" else min(exact, batches // accumulated)

    def warmup(self, total: int) -> int:
        """Return the number of warm-up steps among ``total``."""
        return int(self.warmup_steps * total) if self.warmup_steps <= 1 else int(self.warmup_steps)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings) -> list[dict[str, Any]]:
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
    model: nn.Module, settings: OptimSettings, total_steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Build the optimizer and its schedule: linear warm-up from zero, then polynomial decay.

    Args:
        model: its trainable parameters are selected by name.
        settings: optimizer and schedule settings.
        total_steps: optimizer steps of the whole training run.
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
