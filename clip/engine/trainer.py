"""A run on disk and the Trainer that fills it: folder, record, checkpoints, devices."""

import json
import math
import os
import pickle
import re
import shutil
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
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from clip.engine.checkpoints import check_compatible, validate_checkpoint
from clip.modules.backbones.tensor_files import first_line
from clip.modules.released import read_released
from clip.utils.errors import UserError
from clip.utils.files import atomic_write, write_text

REFRESH = 10  # batches between two updates of the progress bar
BEST, LAST = "best", "last"
NAME = "epoch-{epoch:02d}-step-{step:06d}"  # of a checkpoint
PLACE = re.compile(r"epoch-(\d+)-step-(\d+)-")
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}


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
        kept = self.resumed  # the last; it may be newer than the one that its own state names
        if self.monitor:
            kept = self.resumed.parent / Path(state["best_model_path"]).name
        if not kept.is_file():
            return  # a checkpoint that was taken out of its folder: this run's best starts anew
        own = Path(self.dirpath) / kept.name
        with atomic_write(own) as partial:
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
        """Save a checkpoint whole or not at all; a disk that is full shows as an OSError."""
        with atomic_write(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch hides what the system said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def checkpoint_callbacks(folder: Path, monitor: str, resumed: Path | None = None) -> list[Callback]:
    """Keep the best checkpoint (small) and the last (with the optimiser, to resume from).

    Args:
        folder: of the run.
        monitor: metric of the validation split; larger is better.
        resumed: checkpoint of the interrupted run that goes on here, if any.
    """
    common = {"dirpath": folder / "checkpoints", "auto_insert_metric_name": False,
              "resumed": resumed}  # fmt: skip
    best = Checkpoint(filename=f"{NAME}-{BEST}", monitor=monitor, mode="max",
                      save_weights_only=True, **common)  # fmt: skip
    last = Checkpoint(filename=f"{NAME}-{LAST}", save_on_train_epoch_end=True, **common)
    return [best, last]


def find_checkpoint(path: str, kind: str) -> Path:
    """Resolve a checkpoint file, or the furthest of a kind in the newest version of a run.

    Names decide, not times: a clock that was set back changes nothing.

    Args:
        path: a file, the folder of a run, or the folder of all versions of a run.
        kind: ``BEST`` or ``LAST``; where a run has no best yet its last is taken.

    Raises:
        UserError: nothing there, or checkpoints of several runs.
    """
    given = Path(path)
    if given.is_file():
        return given
    for ending in dict.fromkeys((kind, LAST)):
        found = list(given.glob(f"**/epoch-*-{ending}*.pt"))
        runs = sorted({str(_version(file).parent) for file in found})
        if len(runs) > 1:
            raise UserError(
                f"{path} holds checkpoints of {len(runs)} runs, such as {runs[0]} and {runs[1]}; give the folder of one"
            )
        if found:
            return max(found, key=_order)
    raise UserError(f"{path} is no checkpoint and holds no epoch-*.pt; give a file or a run's folder")


def _version(file: Path) -> Path:
    """Give the version folder that a checkpoint lies in, or the folder itself."""
    inside = (each for each in file.parents if each.name.startswith("version_"))
    return next(inside, file.parent)


def _order(file: Path) -> tuple[int, ...]:
    """Give version, epoch and step; a file that somebody renamed comes first."""
    version = _version(file).name.removeprefix("version_")
    place = PLACE.match(file.name)
    return int(version) if version.isdigit() else -1, *map(int, place.groups() if place else ())


def read_checkpoint(path: Path, seed: int) -> dict[str, Any]:
    """Read a checkpoint of ours or of the released code; nothing in it can run code.

    Args:
        path: the file.
        seed: of the run that wrote it, if it is the released code's.

    Returns:
        "model_config" and "state_dict" among others; of released code also "released".

    Raises:
        UserError: damaged, or neither.
    """
    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            checkpoint = {}  # ours name no classes, the released code's do
        if not isinstance(checkpoint, dict) or not {"model_config", "state_dict"} <= checkpoint.keys():
            checkpoint = read_released(path, seed)
        validate_checkpoint(checkpoint, path)
        # Before there were others, backbones were CLIP.
        return checkpoint | {"model_config": {"backbone": "clip"} | checkpoint["model_config"]}
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds more than tensors and settings; it is not loaded") from None
    except Exception as error:  # noqa: BLE001  a crafted or damaged file can raise anything
        raise UserError(f"{path} cannot be read ({first_line(error)}); give another") from None


def check_resume(
    path: Path, model_config: dict[str, Any], training_config: dict[str, Any], shape: dict[str, int]
) -> None:
    """Refuse to go on with a checkpoint of another model, data, masks or optimiser settings.

    Args:
        path: the checkpoint.
        model_config: of the model.
        training_config: of ``assembly.training_config``.
        shape: "per_gpu_batchsize" and "processes", which must agree within an epoch only.

    Raises:
        UserError: names the first difference with both values, or that there is nothing to resume.
    """
    checkpoint = read_checkpoint(path, seed=0)
    if "optimizer_states" not in checkpoint or "training_config" not in checkpoint:
        raise UserError(f"{path} has no optimiser to go on with; give the run's epoch-*-{LAST}.pt")
    check_compatible(model_config, checkpoint["model_config"], path)
    check_compatible(training_config, checkpoint["training_config"], path)
    position = checkpoint.get("position", {})
    if position.get("batches"):
        check_compatible(shape, position, f"{path}, stopped within an epoch,")


@rank_zero_only
def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; the first process only."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    """Turn numbers that JSON does not have, such as an undefined score, into null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


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
            raise UserError(f"num_gpus={num_gpus}, but this machine has {present}; give at most that")
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
    trainer = pl.Trainer(
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
    # With max_steps, Lightning takes a checkpoint from the end of an epoch for one from within it,
    # and a resumed run would end that epoch, of which it saw nothing, again.
    trainer.fit_loop._iteration_based_training = lambda: False
    return trainer
