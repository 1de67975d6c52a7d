"""Settings of all commands with types, defaults and help texts; the Sacred experiment and its presets.

`python run.py print_config` prints the training settings in the order of this file.
"""

import logging
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from sacred import SETTINGS, Experiment

from clip.missing import MISSING_TYPES, SPLITS
from clip.utils.files import expand_home
from clip.utils.settings import Settings

SETTINGS.CAPTURE_MODE = "no"  # capturing the output would break the progress bars
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # settings are validated as plain dicts and lists

ex = Experiment("DCP", save_git_info=False)
ex.logger = logging.getLogger("DCP")
ex.logger.setLevel(logging.CRITICAL)  # Sacred's start and end messages add nothing to ours

LARGEST_SEED = 2**32 - 1
LARGEST_COUNT = 2**31 - 1
LONGEST_PROMPT = 10_000  # a checkpoint from elsewhere must not allocate all memory
PUBLISHED_WEIGHTS = {"clip": "ViT-B/16", "coca": "CoCa-ViT-B/32", "vilt": "dandelin/vilt-b32-mlm"}  # by backbone


def setting(default: Any, text: str, **limits: Any) -> Any:
    """Define a setting by its default, its help text and its limits."""
    return Field(default, description=text, **limits)


def _one_per_split(value: Any) -> Any:
    return value if isinstance(value, dict) else dict.fromkeys(SPLITS, value)


def as_list(value: Any) -> Any:
    """Return a list with one string if ``value`` is a string; anything else as it is."""
    return [value] if isinstance(value, str) else value


def _file_name(value: str) -> str:
    if not value.strip(". ") or len(value) > 100 or set(value) & set('/\\:*?"<>|\0'):
        raise ValueError("give 1 to 100 characters without slashes")
    return value


MissingType = Literal[MISSING_TYPES]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Limit = Count | Annotated[float, Field(gt=0, le=1)]  # rows, or their share
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
FolderPath = Annotated[str, AfterValidator(expand_home)]
FileName = Annotated[str, AfterValidator(_file_name)]
PerSplit = BeforeValidator(_one_per_split)
Split = Literal[SPLITS]


class RunSettings(Settings):
    """Run."""

    task: str = setting("mmimdb", "data set: mmimdb, food101, hatememes or manifest (your own data)")
    exp_name: FileName = setting("dcp", "name of the run's folder under log_dir")
    log_dir: FolderPath = setting(
        "result", "folder of all run folders; if set, also of what test_only, sweep and predict write"
    )
    seed: Seed = setting(0, "seed of the initial weights and of the sample order")
    test_only: bool = setting(False, "evaluate load_path on the test split instead of training")
    load_path: FolderPath | Annotated[list[FolderPath], Field(min_length=1)] = setting(
        "", "checkpoint (epoch-*.pt) or run folder to start from or to evaluate; a list for sweep"
    )
    resume_from: FolderPath = setting("", "last checkpoint or run folder of an interrupted run to continue")
    logger: Annotated[list[Literal["csv", "tensorboard", "wandb"]], BeforeValidator(as_list)] = setting(
        ["csv"], "csv, tensorboard, wandb or a list of them; metrics.csv is always written"
    )
    plugins: Annotated[list[str], BeforeValidator(as_list)] = setting(
        [], "your own modules on the Python path that register methods, tasks or data sets"
    )


class DataSettings(Settings):
    """Data."""

    data_root: FolderPath = setting("datasets", "folder of the arrow files written by make_arrow.py")
    plots: Literal["first", "longest", "all"] = setting("first", "texts of a row that become samples")
    limit_train: Limit | None = setting(
        None, "rows of the training split, or their share as 0.1; stratified, drawn from seed"
    )
    limit_val: Limit | None = setting(None, "rows of the validation split, or their share")
    limit_test: Limit | None = setting(None, "rows of the test split, or their share")
    num_workers: int | None = setting(None, "loader processes; None: one per core, at most eight", ge=0, le=1024)


class MissingSettings(Settings):
    """Missing modalities (one value for all splits, or one per split as in missing_ratio.train=0.5)."""

    missing_type: Annotated[dict[Split, MissingType], PerSplit] = setting("both", "text, image or both")
    missing_ratio: Annotated[dict[Split, Ratio], PerSplit] = setting(0.7, "share of incomplete samples")
    both_ratio: Ratio = setting(0.5, "share of missing images among the incomplete samples of 'both'")
    missing_draw: Literal["nested", "stream"] = setting("nested", "nested masks, or the released code's random stream")
    missing_seed: int = setting(0, "seed of the masks; separate from seed, so that runs share their masks", ge=0)
    missing_table: Annotated[dict[Split, FolderPath], PerSplit] = setting("", "mask file: .pt, .jsonl, .csv or .npz")
    simulate_missing: bool = setting(False, "draw missing cases of complete training samples in each epoch (Figure 5)")
    test_type: MissingType | None = setting(None, "shorthand for missing_type.test")
    test_ratio: Ratio | None = setting(None, "shorthand for missing_ratio.test")


class ModelSettings(Settings):
    """Model."""

    backbone: str = setting("clip", "frozen backbone: clip or coca (two towers) or vilt (single stream)")
    vit: FolderPath | None = setting(
        None, "its weights: a name, a Hugging Face id, a folder or a file; None: published"
    )
    activation: Literal["quick_gelu", "gelu"] | None = setting(None, "for a weight file that does not state it")
    prompt_type: str = setting("dcp", "method: dcp, none (linear probe), or another row of docs/methods.md")
    prompt_length: int = setting(36, "prompt tokens per tower; a multiple of three for dcp", ge=1, le=LONGEST_PROMPT)
    prompt_depth: Count = setting(6, "layers with new prompts; for dcp with correlated prompts")
    unfreeze: list[str] | None = setting(
        None, "ln_post, ln_final, image_proj, text_proj or backbone; None: as published"
    )
    compile: bool = setting(False, "compile the blocks with torch.compile; pays off in long runs")


class OptimizerSettings(Settings):
    """Optimisation."""

    batch_size: Count = setting(256, "samples per optimiser step, over all devices")
    per_gpu_batchsize: Count | Literal["auto"] = setting(
        "auto", "micro-batch size per device; auto: what fits in memory"
    )
    max_epoch: Count = setting(20, "passes over the training samples")
    max_steps: Count | None = setting(
        None, "stop after this many optimiser steps of the schedule, which is that of max_epoch"
    )
    optim_type: Literal["adamw", "adam"] = setting("adamw", "adamw with the released betas, or plain adam")
    learning_rate: float = setting(1e-2, "learning rate after the warm-up", gt=0, le=1e30)
    lr_mult: float = setting(1.0, "factor on the classifier's learning rate", gt=0, le=1e6)
    weight_decay: float = setting(2e-2, "weight decay; biases are exempt", ge=0, le=1e3)
    warmup_steps: float = setting(0.1, "warm-up: share of all steps, or steps if above 1", ge=0, le=LARGEST_COUNT)
    decay_power: float = setting(1.0, "power of the decay; 1 is linear", gt=0, le=100)
    end_lr: float = setting(0.0, "learning rate at the last step", ge=0)
    schedule_length: Literal["exact", "floor"] = setting("exact", "floor: without partial steps (released code)")
    class_weights: Literal["balanced"] | None = setting(None, "balanced: rare classes weigh more in the training loss")
    val_check_interval: float = setting(0.2, "share of an epoch between validations", gt=0, le=1)
    select_by: str | None = setting(
        None, "validation metric that selects the best checkpoint, such as mAP or loss; None: the task's headline"
    )
    early_stopping: Count | None = setting(None, "stop after this many validations without a better select_by")


class DeviceSettings(Settings):
    """Devices."""

    num_gpus: int = setting(1, "GPUs per node; without any, the CPU is used", ge=0, le=1024)
    num_nodes: int = setting(1, "number of machines", ge=1, le=1024)
    precision: Annotated[Literal["auto", "bf16", "16", "32"], BeforeValidator(str)] = setting(
        "auto",
        "bf16 (on a CPU with instructions for it), 16 (GPU only) or 32; auto: bf16 on a GPU, 32 on a CPU",
    )
    fast_dev_run: bool = setting(False, "run one batch of each split and save nothing")


class SweepSettings(Settings):
    """Settings of the sweep command."""

    types: list[MissingType] = setting(["both", "text", "image"], "missing types to test", min_length=1)
    ratios: list[Ratio] = setting([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0], "missing rates to test", min_length=1)
    seeds: list[Seed] | None = setting(None, "seeds of the masks; None: missing_seed", min_length=1)
    predictions: FolderPath = setting("", "predictions.arrow of an earlier sweep to score on another grid")


class PredictSettings(Settings):
    """Settings of the predict command."""

    image: FolderPath = setting("", "image file to classify, alone or with text")
    text: str = setting("", "text to classify, alone or with image; a number needs two pairs of quotes")
    input: FolderPath = setting("", "csv, jsonl or parquet file, or a folder of images, to classify")
    output: FolderPath = setting(
        "", "csv or parquet file with the predictions for input; '': predictions.csv in a new folder of the run"
    )


class ServeSettings(Settings):
    """Settings of the serve command."""

    host: str = setting("127.0.0.1", "address to bind to; anything else exposes the page to the network")
    port: int = setting(7860, "port; 0 picks a free one", ge=0, le=65535)


class ReproduceSettings(Settings):
    """Settings of the reproduce command."""

    experiment: str | list[str] | None = setting(None, "name in experiments/ or yaml file, or a list of them")
    seeds: list[Seed] = setting([0], "seeds of every run", min_length=1)
    only: list[str] = setting([], "subset of the runs, such as ['task=mmimdb','method=DCP']; []: all")
    launcher: Literal["local", "slurm"] = setting("local", "where to run: local or slurm")
    jobs: Count = setting(1, "runs at the same time")
    slurm: list[str] = setting([], "sbatch options, such as ['partition=gpu','time=120'] (minutes)")


class PretrainSettings(Settings):
    """Settings of the pretrain command."""

    target: FolderPath = setting("datasets/clip", "folder to write")
    image_size: int = setting(64, "pixels; patches of 8 pixels", ge=16, le=512, multiple_of=8)
    width: int = setting(128, "channels of both towers", ge=64, le=4096, multiple_of=64)
    layers: int = setting(6, "layers of both towers", ge=1, le=64)
    epochs: Count = setting(30, "passes over the training pairs")
    batch_size: Count = setting(64, "image-text pairs per step; the other pairs are the negatives")


SECTIONS = (RunSettings, DataSettings, MissingSettings, ModelSettings, OptimizerSettings, DeviceSettings)
GROUPS = {
    "sweep": SweepSettings,
    "predict": PredictSettings,
    "serve": ServeSettings,
    "reproduce": ReproduceSettings,
    "pretrain": PretrainSettings,
}


class BaseConfig(*reversed(SECTIONS)):  # reversed: pydantic puts the fields of the last base first
    """All settings but those of the prompt methods and backbones; frozen.

    Attributes:
        overrides: names of the settings that the user or a preset set, such as "batch_size", "dcp.formulas".
    """

    sweep: SweepSettings = SweepSettings()
    predict: PredictSettings = PredictSettings()
    serve: ServeSettings = ServeSettings()
    reproduce: ReproduceSettings = ReproduceSettings()
    pretrain: PretrainSettings = PretrainSettings()
    overrides: frozenset[str] = Field(frozenset(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_splits_and_weights(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        for key in ("missing_type", "missing_ratio", "missing_table"):
            default = cls.model_fields[key].default
            values[key] = dict.fromkeys(SPLITS, default) | _one_per_split(values.get(key, default))
        for short, key in (("test_type", "missing_type"), ("test_ratio", "missing_ratio")):
            if values.get(short) is not None:
                values[key]["test"] = values[short]
        if values.get("vit") in (None, ""):  # str: the backbone is not validated yet
            values["vit"] = PUBLISHED_WEIGHTS.get(str(values.get("backbone", "clip")))
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.end_lr >= self.learning_rate:
            raise ValueError(f"end_lr={self.end_lr} must be below learning_rate={self.learning_rate}")
        if self.test_only and not self.load_path:
            raise ValueError("test_only=True needs load_path=, a checkpoint or the folder of a run")
        if self.load_path and self.resume_from:
            raise ValueError(
                f"load_path={self.load_path} starts a run and resume_from={self.resume_from} continues one; give one"
            )
        return self

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some settings changed; the overrides stay."""
        return type(self)(**self.model_dump() | changes, overrides=self.overrides)


@ex.named_config
def released():
    """The released code's protocol; docs/fidelity.md lists the differences."""
    plots = "all"
    missing_draw = "stream"
    dcp = {"dynamic_queries": "fixed"}
    schedule_length = "floor"
    per_gpu_batchsize = 4
    precision = "16"


@ex.named_config
def paper():
    """The paper as printed: equations 1-8, only prompts and classifier train, Adam, batch 4."""
    dcp = {"formulas": "paper"}
    unfreeze = []
    optim_type = "adam"
    batch_size = 4


@ex.named_config
def mmp():
    """Missing-aware prompts as published on ViLT (Lee et al., CVPR 2023)."""
    backbone = "vilt"
    prompt_type = "mmp"
    prompt_length = 16
    plots = "all"
    missing_draw = "stream"
    schedule_length = "floor"
    precision = "16"


@ex.named_config
def task_finetune_mmimdb():
    """MM-IMDb: movie genres, 23 classes, multi-label; F1-Macro."""
    task = "mmimdb"
    exp_name = "finetune_mmimdb"


@ex.named_config
def task_finetune_food101():
    """UPMC Food-101: dishes, 101 classes; accuracy."""
    task = "food101"
    exp_name = "finetune_food101"


@ex.named_config
def task_finetune_hatememes():
    """Hateful Memes: hateful or not; AUROC."""
    task = "hatememes"
    exp_name = "finetune_hatememes"
    val_check_interval = 0.11


@ex.named_config
def task_finetune_manifest():
    """Your own data from `make_arrow.py --dataset manifest`; the files state the task."""
    task = "manifest"
    exp_name = "finetune_manifest"
    missing_ratio = {"train": 0.0, "val": 0.0, "test": 0.0}  # nothing is missing but what is missing in the data
