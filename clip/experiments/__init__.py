"""The paper's tables and figures as data, and the commands that do their runs."""

from clip.experiments.cells import collect
from clip.experiments.once import once
from clip.experiments.plan import Planned, plan
from clip.experiments.reproduce import reproduce
from clip.experiments.schema import Experiment, Read, Run
from clip.experiments.spec import available, load_experiment

__all__ = ["Experiment", "Planned", "Read", "Run", "available", "collect", "load_experiment",
           "once", "plan", "reproduce"]  # fmt: skip
