"""How many samples one forward pass takes; the rest of an optimiser step is accumulated."""

import torch
from torch import Tensor

from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

AUTO = "auto"
CPU_SAMPLES = 16  # more at once are no faster there (docs/performance.md)
GPU_SHARE = 0.5  # of the memory, for what the backward pass needs; the rest is working space


def accumulation(batch_size: int, micro_batch: int, world: int) -> int:
    """Give the micro-batches of one optimiser step, in each of ``world`` processes.

    Raises:
        UserError: the batch is no multiple of what the processes take in one pass.
    """
    samples = micro_batch * world
    if batch_size % samples:
        raise UserError(
            f"batch_size={batch_size} is no multiple of the {samples} samples of one pass "
            f"(per_gpu_batchsize={micro_batch} in {world} processes); change one of them"
        )
    return batch_size // samples


def choose(model: PromptedModel, sizes: Sizes, batch_size: int, world: int, on_gpu: bool) -> int:
    """Choose the micro-batch for this machine: as large as helps and fits.

    Args:
        model: on the CPU.
        sizes: of its backbone.
        batch_size: samples of one optimiser step, over all processes.
        world: processes.
        on_gpu: a GPU computes; its memory decides, and all GPUs of a run are taken to be equal.

    Returns:
        A divisor of each process's share of the batch.
    """
    share = batch_size // world
    most = CPU_SAMPLES
    if on_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory
        most = int(GPU_SHARE * memory) // saved_bytes(model, sizes)
    fitting = (size for size in range(1, share + 1) if share % size == 0 and size <= most)
    return max(fitting, default=1)


def saved_bytes(model: PromptedModel, sizes: Sizes) -> int:
    """Measure what a complete sample with a full text keeps for its backward pass, in 32 bit."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(*model.example_inputs(sizes, "cpu"))
    assert out.requires_grad
    return sum(kept.values())  # while the graph lives, no storage takes the place of another
