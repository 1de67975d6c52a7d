"""Write, find, read and validate the checkpoints of a run."""

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pydantic import BaseModel, Field, ValidationError
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from clip.evaluation.report import format_score
from clip.modules.released import read_released
from clip.utils.errors import UserError, first_line
from clip.utils.files import atomic_write, display_path
from clip.utils.settings import user_error

BEST, LAST = "best", "last"
CHECKPOINTS = "checkpoints"  # folder of a run
CHECKPOINT_NAME = "epoch-{epoch:02d}-step-{step:06d}"
POSITION = re.compile(r"epoch-(\d+)-step-(\d+)-")
LONGEST_LIST = 12  # entries of a list in a message
# Optional: data files and checkpoints of other projects may not have these.
LABEL_METADATA = ("class_names", "task_type")


class Checkpoint(ModelCheckpoint):
    """``ModelCheckpoint`` that writes .pt files, as the released README names them, and can resume from ``resumed``."""

    FILE_EXTENSION = ".pt"

    def __init__(self, folder: Path, resumed: Path | None, **settings: Any):
        super().__init__(folder, auto_insert_metric_name=False, **settings)
        self.resumed = resumed

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy the checkpoint kept by the interrupted run into this run's folder."""
        kept = self.resumed  # the last checkpoint; it may be newer than the one named in its state
        if self.monitor:
            if not state["best_model_path"]:  # stopped before the first validation
                return
            kept = self.resumed.parent / Path(state["best_model_path"]).name
        if not kept.is_file():
            where = display_path(kept)
            print(f"{where} no longer exists; the best checkpoint is selected from the remaining validations only")
            return
        own = Path(self.dirpath) / kept.name
        with atomic_write(own) as partial:
            shutil.copyfile(kept, partial)
        best = {str(own): score for score in state["best_k_models"].values()}
        super().load_state_dict(
            state
            | {
                "dirpath": self.dirpath,
                "best_model_path": str(own),
                "best_k_models": best,
                "kth_best_model_path": str(own) if best else "",
            }
        )


class BestCheckpoint(Checkpoint):
    """Keep the checkpoint with the best validation score and print one line per validation.

    Args:
        folder: folder of the checkpoints.
        metric: metric that selects, named as in the log without "val/".
        headline: headline metric of the task.
        baseline: score of the best constant prediction, per metric.
        resumed: last checkpoint of the run that is continued.

    Attributes:
        scores: validation scores of the best checkpoint with its "epoch" and "step"; empty before the first one.
    """

    def __init__(self, folder: Path, metric: str, headline: str, baseline: dict[str, float], resumed: Path | None):
        super().__init__(
            folder,
            resumed,
            filename=f"{CHECKPOINT_NAME}-{metric}-{{val/{metric}:.4f}}-{BEST}",
            monitor=f"val/{metric}",
            mode=selection_mode(metric),
            save_weights_only=True,
            save_on_train_epoch_end=False,  # but after each validation
        )
        self.metric, self.headline, self.baseline = metric, headline, baseline
        self.scores: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the checkpoint if it is the best one so far and print the scores."""
        earlier = self.best_model_path
        super().on_validation_end(trainer, module)
        logged = trainer.callback_metrics.items()
        scores = {name.removeprefix("val/"): float(value) for name, value in logged if name.startswith("val/")}
        position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.best_model_path != earlier:
            self.scores = scores | position
        words = [f"{name} {value}" for name, value in position.items()]
        for name in dict.fromkeys((self.metric, self.headline, "mAP", "loss")):
            if name in scores:
                judged = name in self.baseline and name in (self.metric, self.headline)
                constant = f" (constant {format_score(name, self.baseline[name])})" if judged else ""
                words.append(f"val {name.replace('_', '-')} {format_score(name, scores[name])}{constant}")
        if self.scores:
            words.append(f"best {format_score(self.metric, self.scores[self.metric])} @ {self.scores['step']}")
        bar = trainer.progress_bar_callback
        (bar.print if bar else print)("  ".join(words))

    def state_dict(self) -> dict[str, Any]:
        """Return the state with the scores of the best checkpoint."""
        return super().state_dict() | {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best checkpoint and its scores, if the file still exists."""
        super().load_state_dict(state)
        self.scores = state["scores"] if self.best_model_path else {}


def selection_mode(metric: str) -> str:
    """Return "min" for a loss and "max" for a score."""
    return "min" if metric.endswith("loss") else "max"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically.

    Lightning writes to the system's temporary folder and moves the file. Across file systems the move is a copy, so a
    killed run leaves a truncated checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint; a full disk raises OSError."""
        with atomic_write(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch wraps the OSError
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def find_checkpoint(path: str, kind: str) -> Path:
    """Return a checkpoint file, or the latest one of a kind in the newest version of a run.

    The latest is determined by epoch and step in the file name, not by modification time: clocks change.

    Args:
        path: a file, the folder of a run, or the folder of all versions of a run.
        kind: ``BEST`` or ``LAST``; a run without a best checkpoint yields its last one.

    Raises:
        UserError: there is no checkpoint, or there are checkpoints of several runs.
    """
    folder = Path(path)
    if folder.is_file():
        return folder
    for ending in dict.fromkeys((kind, LAST)):
        found = list(folder.glob(f"**/epoch-*-{ending}*.pt"))
        runs = sorted({str(_version_folder(file).parent) for file in found})
        if len(runs) > 1:
            raise UserError(
                f"{path} has checkpoints of {len(runs)} runs, such as {runs[0]} and {runs[1]}; "
                "give the folder of one run"
            )
        if found:
            return max(found, key=_position)
    raise UserError(f"{path} is not a checkpoint and has no epoch-*.pt in it; give a checkpoint or a run's folder")


def _version_folder(file: Path) -> Path:
    return next((folder for folder in file.parents if folder.name.startswith("version_")), file.parent)


def _position(file: Path) -> tuple[int, ...]:
    version = _version_folder(file).name.removeprefix("version_")
    position = POSITION.match(file.name)
    return int(version) if version.isdigit() else -1, *map(int, position.groups() if position else ())


def read_checkpoint(path: Path, seed: int = 0) -> dict[str, Any]:
    """Read a checkpoint of this project or of the released code without executing code in it.

    Args:
        path: the file.
        seed: seed of the run that wrote it; used only for checkpoints of the released DCP code.

    Returns:
        Dict with at least "model_config" and "state_dict"; for the released code also "released", its backbone.

    Raises:
        UserError: the file is damaged or not a checkpoint.
    """
    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            checkpoint = {}  # ours contain no classes, the released code's do
        if not isinstance(checkpoint, dict) or not {"model_config", "state_dict"} <= checkpoint.keys():
            checkpoint = read_released(path, seed)
        validate_checkpoint(checkpoint, path)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a crafted or damaged file can raise anything
        raise UserError(f"{path} cannot be read as a checkpoint ({first_line(error)}); give another file") from None
    return checkpoint


class StoredModel(BaseModel, extra="allow"):
    """Settings of a checkpoint's model that are read before the schema validates them."""

    class_names: list[str] = []
    plugins: list[str] = []
    vit: str = ""


class StoredRun(BaseModel):
    """Settings and paths of the run that wrote a checkpoint."""

    settings: dict[str, Any]
    paths: dict[str, str]


class StoredCheckpoint(BaseModel):
    """Entries of a checkpoint that this project reads."""

    model: StoredModel = Field(alias="model_config")
    state_dict: dict[str, Any]
    run: StoredRun = StoredRun(settings={}, paths={})
    training_config: dict[str, Any] = {}


def validate_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Check the types in a checkpoint; raise UserError if they are not those that this project writes."""
    try:
        state = StoredCheckpoint.model_validate(checkpoint).state_dict
    except ValidationError as error:
        raise user_error(error, f"{path}: ") from None
    if not all(
        isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        for tensor in state.values()
    ):
        raise UserError(f"{path}: its state_dict does not map names to tensors; give another file")


def check_compatible(ours: dict[str, Any], theirs: dict[str, Any], source: object) -> None:
    """Check that a checkpoint has the task, backbone, prompt shape and classes of this run.

    The name of the backbone may differ, since a folder can move; its SHA-256 may not. Plugins may differ too.

    Raises:
        UserError: a setting differs; the message has both values.
    """
    for key in ours:
        if key in ("vit", "plugins") or (key in LABEL_METADATA and key not in theirs) or ours[key] == theirs.get(key):
            continue
        weights = f" (vit={theirs.get('vit')} there, vit={ours.get('vit')} here)" if key == "backbone_sha256" else ""
        raise UserError(
            f"{source} has {key}={_shorten(theirs.get(key), ours[key])}, "
            f"but this run has {key}={_shorten(ours[key], theirs.get(key))}{weights}; make them equal"
        )


def _shorten(value: Any, other: Any) -> Any:
    """Abbreviate a long list to its length and the first entry that differs."""
    if not isinstance(value, list) or len(value) <= LONGEST_LIST or not isinstance(other, list):
        return value
    where = next((i for i, entry in enumerate(value) if other[i : i + 1] != [entry]), len(value) - 1)
    return f"{len(value)} entries with {value[where]!r} at {where}"


def check_resume(
    path: Path, model_config: dict[str, Any], training_config: dict[str, Any], shape: dict[str, int]
) -> None:
    """Check that a run can resume from a checkpoint; raise UserError with the first difference.

    ``shape`` ("per_gpu_batchsize" and "processes") is only compared if the run stopped within an epoch.
    """
    checkpoint = read_checkpoint(path)
    check_compatible(model_config, checkpoint["model_config"], path)
    check_compatible(training_config, checkpoint["training_config"], path)
    if checkpoint["position"]["batches"]:
        check_compatible(shape, checkpoint["position"], f"{path}, stopped within an epoch,")
