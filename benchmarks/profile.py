"""Where a training step's time goes, in the slow form and in ours.

python -m benchmarks.profile

ViT-B/16, batch 4, 70 % missing both, float32 on a CPU; writes results/profile.json.
"""

import json
from collections import Counter
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import machine
from benchmarks.inputs import Batch, batches, random_model
from benchmarks.step import RATIO, SAMPLES, train_step
from tests.oracles.clip import SlowModel

SIZE = 4
KINDS = {  # of work -> beginnings of its operators' names
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm",
                        "aten::mkldnn_conv"),
    "attention": ("aten::_scaled_dot_product", "aten::_softmax", "aten::_native_multi"),
}  # fmt: skip
REST = "activations, norms, copies and Python"


def shares(model: nn.Module, made: list[Batch]) -> dict[str, float]:
    """Give the seconds of a step by kind of work."""
    train_step(model, made[0])
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        for batch in made:
            train_step(model, batch)
    spent: Counter[str] = Counter(dict.fromkeys((*KINDS, REST), 0.0))
    for event in measured.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), REST)
        spent[kind] += event.self_cpu_time_total / 1e6 / len(made)
    return dict(spent)


def main() -> None:
    """Profile both forms on the same batches."""
    made = batches("both", RATIO, SAMPLES[SIZE], SIZE)
    ours = random_model()
    found: dict[str, Any] = {"slow": shares(SlowModel(ours), made), "ours": shares(ours, made)}
    # Were all else free on our side, only our matrix products would remain.
    found["limit_of_the_ratio"] = sum(found["slow"].values()) / found["ours"]["matrix products"]
    print(json.dumps(found, indent=1))
    machine.write("profile", found)


if __name__ == "__main__":
    main()
