"""A run on disk and the Trainer that fills it: folder, record, checkpoints, devices."""

import json
import math
import os
import pickle
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from clip.errors import UserError
from clip.files import whole, write_text
from clip.modules.checkpoint import check_identity
from clip.modules.published import read_released

REFRESH = 10  # batches between two updates of the progress bar
BEST, LAST = "best", "last"
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
TENSORBOARDS = ("tensorboard", "tensorboardX")  # packages that Lightning can log to


class Checkpoint(ModelCheckpoint):
    """Checkpoints end in .pt, as the published README names them.

    Args:
        resumed: checkpoint of the interrupted run that goes on here, if any.
        settings: of Lightning's ``ModelCheckpoint``.
    """

    FILE_EXTENSION = ".pt"

    def __init__(self, resumed: Path | None, **settings: Any):
        super().__init__(**settings)
        self.resumed = resumed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy what the interrupted run had kept into this run's folder, and go on from there."""
        kept = self.resumed.parent / Path(state["best_model_path"]).name
        if not kept.is_file():
            return  # a checkpoint that was taken out of its folder: this run's best starts anew
        own = Path(self.dirpath) / kept.name
        with whole(own) as partial:
            shutil.copyfile(kept, partial)
        super().load_state_dict(
            state
            | {"dirpath": self.dirpath, "best_model_path": str(own)}
            | {"kth_best_model_path": str(own) if state["best_k_models"] else ""}
            | {"best_k_models": {str(own): score for score in state["best_k_models"].values()}}
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, then renames it.

    Lightning's own writes into the system's temporary folder and moves the file: where that is
    another disk, a move is a copy, and a run that is killed in it leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        """Save a checkpoint whole or not at all."""
        with whole(Path(path)) as partial:
            torch.save(checkpoint, partial)


def checkpoint_callbacks(folder: Path, monitor: str, resumed: Path | None = None) -> list[Callback]:
    """Keep the best checkpoint (small) and the last (with the optimiser, to resume from).

    Args:
        folder: of the run.
        monitor: metric of the validation split; larger is better.
        resumed: checkpoint of the interrupted run that goes on here, if any.
    """
    common = {"dirpath": folder / "checkpoints", "auto_insert_metric_name": False,
              "resumed": resumed}  # fmt: skip
    best = Checkpoint(filename=f"epoch-{{epoch:02d}}-step-{{step:06d}}-{BEST}", monitor=monitor,
                      mode="max", save_weights_only=True, **common)  # fmt: skip
    last = Checkpoint(filename=f"epoch-{{epoch:02d}}-step-{{step:06d}}-{LAST}",
                      save_on_train_epoch_end=True, **common)  # fmt: skip
    return [best, last]


def find_checkpoint(path: str, kind: str) -> Path:
    """Resolve a checkpoint file, or the newest of a kind in a run's folder.

    Args:
        path: a file, the folder of a run, or the folder of all versions of a run.
        kind: ``BEST`` or ``LAST``; where a run has no best yet its last is taken.

    Raises:
        UserError: nothing there.
    """
    given = Path(path)
    if given.is_file():
        return given
    for ending in dict.fromkeys((kind, LAST)):
        found = list(given.glob(f"**/epoch-*-{ending}*.pt"))
        if found:
            return max(found, key=lambda file: file.stat().st_mtime)
    raise UserError(
        f"{path} is no checkpoint and holds no epoch-*.pt; give a file or a run's folder"
    )


def read_checkpoint(path: Path, seed: int) -> dict[str, Any]:
    """Read a checkpoint of ours or of the released code; nothing in it can run code.

    Args:
        path: the file.
        seed: of the run that wrote it, if it is the released code's.

    Returns:
        "identity" and "state_dict" among others; of the released code also "clip".

    Raises:
        UserError: damaged, or neither.
    """
    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            checkpoint = {}  # ours name no classes, the released code's do
        if isinstance(checkpoint, dict) and {"identity", "state_dict"} <= checkpoint.keys():
            return checkpoint
        return read_released(path, seed)
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds more than tensors and settings; it is not loaded") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({str(error).splitlines()[0][:100]}); give another"
        ) from None


def check_resume(path: Path, identity: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Refuse to go on with a checkpoint of another model, data, masks or optimiser settings.

    Raises:
        UserError: names the first difference with both values, or that there is nothing to resume.
    """
    checkpoint = read_checkpoint(path, seed=0)
    if "optimizer_states" not in checkpoint or "protocol" not in checkpoint:
        raise UserError(f"{path} has no optimiser to go on with; give the run's epoch-*-{LAST}.pt")
    check_identity(identity, checkpoint["identity"], path)
    check_identity(protocol, checkpoint["protocol"], path)


def loggers(log_dir: str, name: str) -> list[Logger]:
    """Make a new version folder for a run, with a CSV log and, if installed, TensorBoard's."""
    csv = CSVLogger(log_dir, name=name)
    out: list[Logger] = [csv]
    if any(find_spec(name) for name in TENSORBOARDS):
        out.append(TensorBoardLogger(log_dir, name=name, version=csv.version))
    return out


@rank_zero_only
def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; the first process only."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    """Turn numbers that JSON does not have, such as an undefined score, into null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def git_commit() -> str:
    """Name the commit of this checkout, "+changes" if it is not clean, "unknown" outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True,
                              check=True).stdout.strip()  # fmt: skip

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def devices(num_gpus: int, precision: str) -> dict[str, Any]:
    """Choose the Trainer's accelerator, devices and precision, and say where they differ.

    Args:
        num_gpus: wanted per node.
        precision: a value of ``config_rules.PRECISIONS``.

    Raises:
        UserError: more GPUs are wanted than there are, but not none.
    """
    present = torch.cuda.device_count()
    if num_gpus and present:
        if num_gpus > present:
            raise UserError(
                f"num_gpus={num_gpus}, but this machine has {present}; give at most that"
            )
        return {"accelerator": "gpu", "devices": num_gpus, "precision": precision}
    if num_gpus:
        print(f"num_gpus={num_gpus}, but this machine has none: running on the CPU in 32 bit")
    started = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun started here
    return {"accelerator": "cpu", "devices": started, "precision": "32-true"}


def world(config: dict[str, Any], device: dict[str, Any]) -> int:
    """Count the processes of a run, over all its machines."""
    return device["devices"] * config["num_nodes"]


def make_trainer(
    run: list[Logger], device: dict[str, Any], callbacks: list[Callback] = (), **settings: Any
) -> pl.Trainer:
    """Make Lightning's Trainer with what all commands share."""
    watch: list[Callback] = [TQDMProgressBar(refresh_rate=REFRESH)]
    if run and callbacks:
        watch.append(LearningRateMonitor("step"))
    several = device["devices"] * settings.get("num_nodes", 1) > 1
    return pl.Trainer(
        # Every trainable parameter takes part in every step, and the only buffers are constants:
        # processes with more batches than others must not wait for them.
        strategy=DDPStrategy(forward_sync_buffers=False) if several else "auto",
        use_distributed_sampler=False,  # ours deal the samples out without repeating any
        logger=run,
        plugins=[WholeCheckpoints()],
        callbacks=[*callbacks, *watch],
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **device,
        **settings,
    )
