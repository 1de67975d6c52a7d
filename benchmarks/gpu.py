"""One GPU: equal outputs, time, memory and matrix rate of a training step, and whole epochs.

    python -m benchmarks.gpu

Needs torch, numpy and einops only, and no network. `--rehearse` goes through all of it in small on
a CPU and writes nothing. Weights and pixels are random: their values do not matter to the time.
"""

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.inputs import VIT_B_16, Batch, batches, random_model
from clip.modules import PromptedCLIP
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.prompted_clip import BatchIndex, build_index
from tests.oracles.clip import SlowModel

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
RATIO, SPREAD = 0.7, 1 / 256  # missing rate; of a uint8 pixel
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 2e-2


class Scale(NamedTuple):
    """How much is measured."""

    device: str
    micro_batches: tuple[int, ...]
    step: int  # samples of one optimiser step
    matrix: int  # side of the matrices whose product gives the ceiling
    repeats: int
    pairs: int  # of the training set
    epochs: int
    workers: int
    sizes: ClipSizes


SMALL = dataclasses.replace(VIT_B_16, image_width=64, image_layers=6, grid=2, text_width=64,
                            text_layers=6)  # fmt: skip
FULL = Scale("cuda", (4, 32, 64, 256), 256, 8192, 5, 15_552, 20, 14, VIT_B_16)
REHEARSAL = Scale("cpu", (2, 4), 4, 256, 1, 8, 1, 0, SMALL)


def wait(device: str) -> None:
    """Let the GPU finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], scale: Scale) -> float:
    """Time a call, the first one left out."""
    run()
    wait(scale.device)
    start = time.perf_counter()
    for _ in range(scale.repeats):
        run()
    wait(scale.device)
    return (time.perf_counter() - start) / scale.repeats


def ceiling(scale: Scale, dtype: torch.dtype) -> float:
    """Measure the matrix rate in TFLOP/s."""
    a, b = (torch.randn(scale.matrix, scale.matrix, device=scale.device, dtype=dtype)
            for _ in range(2))  # fmt: skip
    return 2 * scale.matrix**3 / seconds(lambda: a @ b, scale) / 1e12


def placed(made: list[Batch], device: str) -> list[tuple[Tensor, Tensor, Tensor, BatchIndex]]:
    """Count what batches hold and put them on the device, as the loader does."""
    out = []
    for image, tokens, cases in made:
        rows = build_index(tokens, cases)
        present = BatchIndex(rows.image_rows.to(device), rows.text_rows.to(device), rows.longest)
        out.append((image.to(device), tokens.to(device), cases.to(device), present))
    return out


def train_step(model: nn.Module, made: list[tuple], scale: Scale, dtype: torch.dtype) -> None:
    """Accumulate the gradients of one optimiser step; the slow form counts for itself."""
    for *inputs, present in made:
        inputs += [present] * isinstance(model, PromptedCLIP)
        with torch.autocast(scale.device, dtype, enabled=dtype != torch.float32):
            loss = model(*inputs).float().square().mean()
        loss.backward()


def measure_step(model: nn.Module, micro: int, scale: Scale, name: str, rate: float) -> dict[str, Any]:
    """Time one optimiser step in micro-batches, with memory and achieved matrix rate."""
    made = placed(batches("both", RATIO, scale.step, micro, scale.sizes.image_size), scale.device)
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = seconds(lambda: train_step(model, made, scale, TYPES[name]), scale)
    out = {"precision": name, "micro_batch": micro, "seconds": taken,
           "samples_per_s": scale.step / taken}  # fmt: skip
    if scale.device == "cuda":
        out["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    with FlopCounterMode(display=False) as counter:
        train_step(model, made, scale, TYPES[name])
    achieved = counter.get_total_flops() / taken / 1e12
    return out | {"tflop_per_s": achieved, "share_of_matrix_rate": achieved / rate}


def steps(scale: Scale, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Measure eager and compiled steps of all micro-batches, and the slow form at the smallest."""
    rows, model = [], random_model(sizes=scale.sizes).to(scale.device)
    slow = SlowModel(model)
    for name in TYPES:
        least = scale.micro_batches[0]
        rows.append({"form": "slow"} | measure_step(slow, least, scale, name, rates[name]))
        print(rows[-1], flush=True)
    for form, name, micro in itertools.product(("eager", "compiled"), TYPES, scale.micro_batches):
        if (form, name, micro) == ("compiled", "bf16", scale.micro_batches[0]):
            model.compile_towers()
        rows.append({"form": form} | measure_step(model, micro, scale, name, rates[name]))
        print(rows[-1], flush=True)
    return rows


@torch.inference_mode()
def equality(scale: Scale) -> dict[str, float]:
    """Compare logits with the CPU's and the slow form's, in 32 bit and bf16; also empty batches."""
    model = random_model(sizes=scale.sizes).eval()
    out = {}
    for kind, ratio in (("both", RATIO), ("image", 1.0), ("text", 1.0)):
        (batch,) = batches(kind, ratio, 8, 8, scale.sizes.image_size)
        wanted = model.cpu()(*batch)
        model.to(scale.device)
        here = [tensor.to(scale.device) for tensor in batch]
        found, slow = model(*here), SlowModel(model)(*here)
        with torch.autocast(scale.device, torch.bfloat16):
            half = model(*here)
        for name, one in (("gpu", found), ("slow", slow), ("bf16", half)):
            out[f"{kind} {ratio:.0%}: {name} against CPU"] = float((one.cpu() - wanted).abs().max())
    return out


class Films(Dataset):
    """A training set of stored pixels and cached tokens, as an arrow file of this size gives."""

    def __init__(self, pairs: int, side: int):
        (image, self.tokens, self.cases) = batches("both", RATIO, pairs, pairs, side)[0]
        self.pixels = (image / SPREAD).clamp(0, 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels[index], self.tokens[index], self.cases[index]


def collate(samples: list[tuple]) -> tuple:
    """Stack samples and count in the worker what they hold."""
    image, tokens, cases = map(torch.stack, zip(*samples, strict=True))
    return image, tokens, cases, build_index(tokens, cases)


def epochs(scale: Scale) -> dict[str, float]:
    """Train on data of MM-IMDb's size from worker processes to the optimiser, in bf16."""
    model = random_model(sizes=scale.sizes).to(scale.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    films = Films(scale.pairs, scale.sizes.image_size)
    loader = DataLoader(
        films, scale.step, shuffle=True, num_workers=scale.workers,
        persistent_workers=scale.workers > 0, pin_memory=scale.device == "cuda", collate_fn=collate,
    )  # fmt: skip
    taken = []
    for _ in range(scale.epochs):
        start = time.perf_counter()
        for image, tokens, cases, present in loader:
            image, tokens, cases = (x.to(scale.device, non_blocking=True)
                                    for x in (image, tokens, cases))  # fmt: skip
            rows = [x.to(scale.device, non_blocking=True) for x in present[:2]]
            here = BatchIndex(*rows, present.longest)
            train_step(model, [(image * SPREAD, tokens, cases, here)], scale, TYPES["bf16"])
            optimizer.step()
            optimizer.zero_grad()
        wait(scale.device)
        taken.append(time.perf_counter() - start)
    return {"pairs": scale.pairs, "epochs": scale.epochs, "seconds": sum(taken),
            "seconds_of_the_first": taken[0]}  # fmt: skip


def main() -> None:
    """Measure everything and write results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="in small, on a CPU, nothing kept")
    scale = REHEARSAL if parser.parse_args().rehearse else FULL
    torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is fp32
    rates = {name: ceiling(scale, dtype) for name, dtype in TYPES.items()}
    results = {
        "shapes": dataclasses.asdict(scale.sizes),
        "matrix_rate_tflop_per_s": rates,
        "largest_difference_of_a_logit": equality(scale),
        "steps": steps(scale, rates),
        "epochs": epochs(scale),
    }
    print(json.dumps(results, indent=1))
    if scale is FULL:
        machine.write("gpu", results)


if __name__ == "__main__":
    main()
