"""Choose devices and micro-batch size, and create Lightning's Trainer."""

import os
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from clip.engine.callbacks import ReportedStop
from clip.engine.checkpoints import AtomicCheckpointIO
from clip.evaluation.report import format_score
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

REFRESH_RATE = 10  # batches between two updates of the progress bar
LOG_SECONDS = 180  # between two lines of progress in output that is not a terminal
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}  # setting -> Lightning's name
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86 and ARM; others emulate it, slower than 32 bit
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
CPU_MICRO_BATCH = 16  # larger ones are only faster with a small CLIP (docs/performance.md)
GPU_MEMORY_SHARE = 0.5  # for activations kept for the backward pass; the rest is working space
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE")


def choose_device(num_gpus: int, num_nodes: int, precision: str) -> dict[str, Any]:
    """Return the Trainer's accelerator, devices, num_nodes and precision; print where they differ from the settings."""
    available = torch.cuda.device_count()
    if num_gpus > available > 0:
        raise UserError(f"num_gpus={num_gpus}, but this machine has {available}; give at most {available}")
    if num_nodes > 1 and not {"MASTER_ADDR", "SLURM_JOB_ID"} & os.environ.keys():
        raise UserError(f"num_nodes={num_nodes} needs processes that torchrun or srun starts on each machine")
    if num_gpus and available:
        chosen = "bf16" if precision == "auto" else precision
        device = {"accelerator": "gpu", "devices": num_gpus, "num_nodes": num_nodes, "precision": PRECISIONS[chosen]}
    else:
        chosen = "bf16" if precision == "bf16" and has_native_bf16() else "32"
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if TorchElasticEnvironment.detect() else 1
        device = {"accelerator": "cpu", "devices": local, "num_nodes": num_nodes, "precision": PRECISIONS[chosen]}
    if world_size(device) == 1:  # a launcher may have left variables behind that would silence this process
        for name in RANK_VARIABLES:
            os.environ.pop(name, None)
        rank_zero_only.rank = 0
    if rank_zero_only.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the first process prints for all
    if num_gpus and not available:
        print(f"num_gpus={num_gpus}, but this machine has none: running on the CPU")
    if precision not in ("auto", chosen):
        print(f"precision={precision}, but this processor has no such instructions: computing in 32 bit")
    return device


def has_native_bf16() -> bool:
    """Return whether the processor has instructions for matrix products in bf16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in NATIVE_BF16)


def world_size(device: dict[str, Any]) -> int:
    """Return the number of processes of a run over all its machines."""
    return device["devices"] * device["num_nodes"]


def check_single_process(command: str) -> None:
    """Raise UserError if torchrun started this command, which must be one process, in several."""
    if TorchElasticEnvironment.detect() and (size := TorchElasticEnvironment().world_size()) > 1:
        raise UserError(f"{command} was started in {size} processes; start it once, without torchrun")


def cluster_environment(processes: int) -> ClusterEnvironment:
    """Return the environment that started this process; Lightning's own guess trusts any SLURM variable."""
    if processes > 1 and TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if processes > 1 and SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) == processes:
        return SLURMEnvironment(auto_requeue=False)  # requeued jobs resume with resume_from=
    return LightningEnvironment()


class ProgressBar(TQDMProgressBar):
    """Progress bar with the latest validation score of the headline metric."""

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """Return what the bar shows, without Lightning's version number."""
        metrics = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        scores = {name: v for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        if scores:
            headline = f"val/{module.task.headline}"
            metrics[headline] = format_score(headline, float(scores[headline]))
        return metrics


class ProgressLines(Callback):
    """Print a line of progress every few minutes, in place of the bar where the output is not a terminal."""

    def __init__(self):
        self.printed = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print epoch, step, position in the epoch and what a bar would show."""
        if time.monotonic() - self.printed >= LOG_SECONDS:
            self.printed = time.monotonic()
            values = "".join(f"  {name} {value:.3f}" for name, value in trainer.progress_bar_metrics.items())
            done = f"batch {batch_idx + 1} of {trainer.num_training_batches}"
            print(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {done}{values}", flush=True)


def make_trainer(
    loggers: list[Logger], device: dict[str, Any], callbacks: list[Callback] = (), **settings: Any
) -> pl.Trainer:
    """Return Lightning's Trainer with what all commands share, on the device of ``choose_device``."""
    is_terminal = sys.stdout.isatty()
    progress: list[Callback] = [ProgressBar(REFRESH_RATE) if is_terminal else ProgressLines()]
    processes = world_size(device)
    return pl.Trainer(
        # Every trainable parameter takes part in every step, and all buffers are constants: processes with more
        # batches than others must not wait for them.
        strategy=DDPStrategy(forward_sync_buffers=False) if processes > 1 else "auto",
        use_distributed_sampler=False,  # the data module has its own samplers
        logger=loggers,
        default_root_dir=loggers[0].log_dir if loggers else None,
        plugins=[AtomicCheckpointIO(), cluster_environment(processes)],
        callbacks=[*callbacks, *progress, ReportedStop()],
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=is_terminal,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **device,
        **settings,
    )


def accumulation(batch_size: int, micro_batch: int, processes: int) -> int:
    """Return the micro-batches of one optimiser step in each process."""
    samples = micro_batch * processes
    if batch_size % samples:
        raise UserError(
            f"batch_size={batch_size} is not a multiple of the {samples} samples of one pass "
            f"(per_gpu_batchsize={micro_batch} in {processes} processes); change one of them"
        )
    return batch_size // samples


def choose_micro_batch(model: PromptedModel, sizes: Sizes, batch_size: int, processes: int, on_gpu: bool) -> int:
    """Return the largest micro-batch that helps and fits: a divisor of each process's share of the batch.

    The model must be on the CPU; all GPUs are taken to be equal.
    """
    share, largest = batch_size // processes, CPU_MICRO_BATCH
    if on_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory
        largest = int(GPU_MEMORY_SHARE * memory) // activation_bytes(model, sizes)
    return max((size for size in range(1, share + 1) if share % size == 0 and size <= largest), default=1)


def activation_bytes(model: PromptedModel, sizes: Sizes) -> int:
    """Measure the bytes that one complete sample with a text of full length keeps for its backward pass in 32 bit."""
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
