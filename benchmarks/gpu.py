"""One GPU: differences of logits, time, memory and matrix rate of an optimizer step, and training epochs.

    python -m benchmarks.gpu

DCP on ViT-B/16 with random weights. Logits are compared with those of the CPU. The reference model
(`tests/oracles/clip.py`) is measured at the smallest micro-batch. The matrix rate is that of one large product in the
same precision; the epochs are those of a data set of MM-IMDb's size in bf16, from loader workers to the optimizer.
`--rehearse` runs all of it on a CPU with small sizes and writes nothing.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.inputs import VIT_B_16, Batch, batches, random_model
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.prompted_clip import BatchIndex, build_index
from clip.modules.prompted_model import PromptedModel
from tests.oracles.clip import SlowModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # the frozen weights are cast before the second
RATIO, SPREAD = 0.7, 1 / 256  # missing rate; standard deviation of one level of a uint8 pixel


class Scale(NamedTuple):
    """Sizes of the measurement."""

    device: str
    micro_batches: tuple[int, ...]
    batch: int  # samples of an optimizer step
    matrix: int  # side of the matrices of the matrix rate
    repeats: int
    samples: int  # of the training set
    epochs: int
    workers: int
    sizes: ClipSizes


SMALL = replace(VIT_B_16, image_width=64, image_layers=6, grid=2, text_width=64, text_layers=6)
FULL = Scale("cuda", (16, 64, 256), 256, 8192, 3, 15_552, 5, 12, VIT_B_16)
REHEARSAL = Scale("cpu", (2, 4), 4, 256, 1, 8, 1, 0, SMALL)


def synchronize(device: str) -> None:
    """Wait for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call: Callable[[], Any], scale: Scale) -> float:
    """Return the mean seconds of a call, without the first."""
    call()
    synchronize(scale.device)
    start = time.perf_counter()
    for _ in range(scale.repeats):
        call()
    synchronize(scale.device)
    return (time.perf_counter() - start) / scale.repeats


def matrix_rate(scale: Scale, dtype: torch.dtype) -> float:
    """Measure the rate of one matrix product in TFLOP/s."""
    a, b = (torch.randn(scale.matrix, scale.matrix, device=scale.device, dtype=dtype) for _ in range(2))
    return 2 * scale.matrix**3 / timed(lambda: a @ b, scale) / 1e12


def to_device(batch: tuple, device: str) -> tuple:
    """Move image, tokens, cases and their index to the device."""
    image, tokens, cases, index = batch
    rows = [x.to(device, non_blocking=True) for x in (image, tokens, cases, index.image_rows, index.text_rows)]
    return *rows[:3], BatchIndex(*rows[3:], index.longest)


def indexed(batch: Batch) -> tuple:
    """Build the index of a batch, as the loader does."""
    return *batch, build_index(batch[1], batch[2])


def accumulate(model: nn.Module, made: list[tuple], scale: Scale, dtype: torch.dtype) -> None:
    """Compute the gradients of one optimizer step; the reference model takes no index."""
    for *inputs, index in made:
        with torch.autocast(scale.device, dtype, enabled=dtype != torch.float32):
            logits = model(*inputs, index) if isinstance(model, PromptedModel) else model(*inputs)
        logits.float().square().mean().backward()


def measure_step(model: nn.Module, micro_batch: int, scale: Scale, name: str, rate: float) -> dict[str, Any]:
    """Time one optimizer step in micro-batches, with its memory and matrix rate."""
    drawn = batches("both", RATIO, scale.batch, micro_batch, scale.sizes.image_size)
    made = [to_device(indexed(batch), scale.device) for batch in drawn]
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: accumulate(model, made, scale, PRECISIONS[name]), scale)
    peak = torch.cuda.max_memory_allocated() / 2**20 if scale.device == "cuda" else 0.0
    with FlopCounterMode(display=False) as counter:
        accumulate(model, made, scale, PRECISIONS[name])
    achieved = counter.get_total_flops() / seconds / 1e12
    row = {"precision": name, "micro-batch": micro_batch, "step, s": seconds, "samples/s": scale.batch / seconds}
    return row | {"peak, MB": peak, "TFLOP/s": achieved, "share of the matrix rate": achieved / rate}


def steps(scale: Scale, rates: dict[str, float]) -> machine.Rows:
    """Measure eager and compiled steps of all micro-batches, and the reference at the smallest."""
    rows, smallest = [], scale.micro_batches[0]
    for form, name in itertools.product(("reference", "eager", "compiled"), PRECISIONS):
        model = random_model(sizes=scale.sizes).to(scale.device)
        if name == "bf16":
            model.cast_frozen(torch.bfloat16)
        if form == "reference":  # one sample at a time: one micro-batch is enough
            few = scale._replace(batch=smallest, repeats=1)
            rows.append({"form": form} | measure_step(SlowModel(model), smallest, few, name, rates[name]))
            continue
        if form == "compiled":
            model.compile_towers()
        for micro_batch in scale.micro_batches:
            rows.append({"form": form} | measure_step(model, micro_batch, scale, name, rates[name]))
            print(rows[-1], flush=True)
    return rows


@torch.inference_mode()
def differences(scale: Scale) -> machine.Rows:
    """Compare logits with those of the CPU, also where a modality is missing in every sample."""
    rows = []
    for missing, ratio in (("both", RATIO), ("image", 1.0), ("text", 1.0)):
        model = random_model(sizes=scale.sizes).eval()
        (batch,) = batches(missing, ratio, 8, 8, scale.sizes.image_size)
        expected = model(*batch)
        here = [tensor.to(scale.device) for tensor in batch]
        model.to(scale.device)
        found = {"fp32": model(*here), "reference": SlowModel(model)(*here)}
        model.cast_frozen(torch.bfloat16)
        with torch.autocast(scale.device, torch.bfloat16):
            found["bf16"] = model(*here)
        rows.append({"missing": missing, "missing rate": ratio})
        rows[-1] |= {name: float((logits.cpu() - expected).abs().max()) for name, logits in found.items()}
    return rows


class Films(Dataset):
    """A training set of stored pixels and cached tokens."""

    def __init__(self, samples: int, side: int):
        (image, self.tokens, self.cases) = batches("both", RATIO, samples, samples, side)[0]
        self.pixels = (image / SPREAD).clamp(0, 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels[index], self.tokens[index], self.cases[index]


def collate(samples: list[Batch]) -> tuple:
    """Stack samples and build their index in the worker."""
    return indexed(tuple(map(torch.stack, zip(*samples, strict=True))))


def epochs(scale: Scale) -> dict[str, Any]:
    """Train in bf16 on a data set of MM-IMDb's size."""
    model = random_model(sizes=scale.sizes).to(scale.device)
    model.cast_frozen(torch.bfloat16)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-2, weight_decay=2e-2)
    options = {"num_workers": scale.workers, "persistent_workers": scale.workers > 0, "collate_fn": collate}
    films = Films(scale.samples, scale.sizes.image_size)
    loader = DataLoader(films, scale.batch, shuffle=True, pin_memory=scale.device == "cuda", **options)
    seconds = []
    for _ in range(scale.epochs):
        start = time.perf_counter()
        for batch in loader:
            image, *rest = to_device(batch, scale.device)
            accumulate(model, [(image * SPREAD, *rest)], scale, torch.bfloat16)
            optimizer.step()
            optimizer.zero_grad()
        synchronize(scale.device)
        seconds.append(time.perf_counter() - start)
    row = {"samples": scale.samples, "epochs": scale.epochs, "seconds": sum(seconds)}
    return row | {"seconds of the first": seconds[0]}


def main() -> None:
    """Measure everything and write results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="run with small sizes on a CPU, write nothing")
    scale = REHEARSAL if parser.parse_args().rehearse else FULL
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {name: matrix_rate(scale, dtype) for name, dtype in PRECISIONS.items()}
    results = {
        "matrix rate": [{"precision": name, "TFLOP/s": rate} for name, rate in rates.items()],
        "largest difference of a logit from the CPU": differences(scale),
        "one optimizer step": steps(scale, rates),
        "training": [epochs(scale)],
    }
    if scale is FULL:
        machine.write("gpu", results)


if __name__ == "__main__":
    main()
