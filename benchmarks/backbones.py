"""FLOPs, time and memory of a training step of each method on each backbone.

    python -m benchmarks.backbones

`clip` is ViT-B/16 and `coca` ViT-B/32 at 224x224, `vilt` is ViLT-B/32 at 384x384; 36 prompt tokens, depth 6, 23
classes, float32, random weights, batches of 4, texts of about 50 words, 8 of 12 samples incomplete (missing both). A
method and the baseline `none` of the same backbone run in turn on the same batches; each row has a process of its own,
and the row of `none` shows the noise. Seconds are processor time of one thread. Memory is what the first step adds to
the peak. The loss is that of the logits, without the terms that some methods add. A method that a backbone does not
support has no row.
"""

import multiprocessing
import time
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.inputs import VIT_B_16, batches, random_model
from benchmarks.step import RATIO, train_step
from clip.evaluation.costs import PUBLISHED_SIZES
from clip.modules.backbones.vilt_convert import ViltSizes
from clip.modules.factory import MODELS
from clip.modules.prompted_model import Inputs, PromptedModel
from clip.modules.prompts import PROMPT_TYPES
from clip.utils.errors import UserError

SIZES = {
    "clip": VIT_B_16,
    "coca": PUBLISHED_SIZES["CoCa-ViT-B/32"],
    "vilt": ViltSizes(width=768, layers=12, patch=32, grid=12, context=1024, vocabulary=30522),
}


def collated(backbone: str) -> list[Inputs]:
    """Draw batches and collate them as the data loader does."""
    sizes, out = SIZES[backbone], []
    context = min(VIT_B_16.context, sizes.context)
    for image, tokens, cases in batches("both", RATIO, 12, 4, sizes.image_size, context):
        tokens = tokens.clamp(max=sizes.vocabulary - 1)
        rows = [
            {"image": image[i], "tokens": tokens[i], "missing_type": case, "sample_id": i}
            for i, case in enumerate(cases)
        ]
        batch = MODELS[backbone].collate(rows)
        out.append(Inputs(*(batch[key] for key in ("image", "tokens", "missing_type", "present"))))
    return out


def step_flops(model: PromptedModel, made: list[Inputs]) -> float:
    """Count forward and backward passes, in GFLOP a batch."""
    # The counter does not know the fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for batch in made:
            train_step(model, batch)
    return counter.get_total_flops() / len(made) / 1e9


def measure(backbone: str, method: str) -> dict[str, Any] | None:
    """Compare one method with the baseline; return None if the backbone does not support it."""
    torch.set_num_threads(1)
    made, sizes = collated(backbone), SIZES[backbone]
    try:
        model = random_model(method, sizes)
    except UserError as error:
        print(f"{method} on {backbone}: {error}")
        return None
    before = machine.reset_peak()
    train_step(model, made[0])
    peak = machine.resident_mb("VmHWM") - before
    base, seconds = random_model("none", sizes), [0.0, 0.0]
    train_step(base, made[0])  # the first call allocates
    for batch in made:
        for i, each in enumerate((model, base)):
            start = time.process_time()
            train_step(each, batch)
            seconds[i] += (time.process_time() - start) / len(made)
    flops, base_flops = step_flops(model, made), step_flops(base, made)
    trained = sum(model.get_parameter(name).numel() for name in model.trainable_names())
    row = {"backbone": backbone, "method": method, "trains": trained, "step, GFLOP": flops}
    row |= {"ratio of FLOPs": flops / base_flops, "step, s": seconds[0], "ratio of seconds": seconds[0] / seconds[1]}
    return row | {"peak, MB": peak}


def main() -> None:
    """Measure everything and write results/backbones.json."""
    jobs = [(backbone, method) for backbone in SIZES for method in PROMPT_TYPES]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [row for row in pool.starmap(measure, jobs, chunksize=1) if row]
    torch.set_num_threads(1)  # as in each row
    machine.write("backbones", {"methods": rows})


if __name__ == "__main__":
    main()
