"""Settings and checkpoints to a model with its data: the one place that joins the parts."""

from typing import Any

from clip import runs
from clip.datamodules import MissingModalityDataModule
from clip.modules.clip_missing_aware_prompt_module import (
    MissingAwarePromptModule,
    check_identity,
    load_trained,
)
from clip.modules.clip_weights import load_clip
from clip.modules.model import build_model
from clip.modules.objectives import TASKS
from clip.modules.optim import OptimSettings
from clip.transforms import TRANSFORMS

MODEL_KEYS = ("prompt_type", "prompts", "prompt_length", "prompt_depth", "thaw")


def from_config(
    config: dict[str, Any], given: set[str]
) -> tuple[MissingAwarePromptModule, MissingModalityDataModule]:
    """Build the model, load ``load_path`` into it if there is one, and make its data module.

    Args:
        config: checked settings; those of the model that the user did not give are taken from the
            checkpoint, and set here.
        given: names of the settings that the user gave.

    Raises:
        UserError: the checkpoint is of another task or CLIP, or the user asks for another model.
    """
    path = runs.find_checkpoint(config["load_path"], runs.BEST) if config["load_path"] else None
    checkpoint = runs.read_checkpoint(path) if path else None
    if checkpoint:
        for key in {"vit", "activation", *MODEL_KEYS} - given:
            config[key] = checkpoint["identity"][key]
    task = TASKS[config["task"]]
    frozen = load_clip(config["vit"], config["activation"])
    model = build_model(
        frozen.state,
        config["prompt_type"],
        task.num_classes,
        config["prompt_length"],
        config["prompt_depth"],
        prompts=config["prompts"],
        thaw=config["thaw"],
        activation=frozen.activation,
    )
    identity = {key: config[key] for key in ("task", "vit", *MODEL_KEYS)}
    identity |= {"thaw": list(model.thaw), "backbone_sha256": frozen.sha256,
                 "activation": frozen.activation}  # fmt: skip
    if checkpoint:
        check_identity(identity, checkpoint["identity"], path)
        load_trained(model, checkpoint["state_dict"], path)
        print(f"loaded {path}")
    module = MissingAwarePromptModule(model, task, OptimSettings.from_config(config), identity)
    return module, data_from_config(config, frozen.sizes.image_size, frozen.tokenizer)


def data_from_config(
    config: dict[str, Any], image_size: int, tokenize: Any
) -> MissingModalityDataModule:
    """Make the data module of the task, with CLIP's transform at the backbone's image size."""
    transform = TRANSFORMS["clip"](image_size)
    classes = TASKS[config["task"]].num_classes
    return MissingModalityDataModule.from_config(config, classes, image_size, transform, tokenize)


def run_record(module: MissingAwarePromptModule, config: dict[str, Any]) -> dict[str, Any]:
    """Describe a run: its settings, its model, and what trains, with counts."""
    sizes = {name: p.numel() for name, p in module.model.named_parameters()}
    trainable = {name: sizes[name] for name in module.model.trainable_names()}
    count, total = sum(trainable.values()), sum(sizes.values())
    print(f"{count:,} of {total:,} parameters train ({100 * count / total:.2f} %)")
    return {"git_commit": runs.git_commit(), "config": config,
            "identity": module.identity, "trainable": trainable}  # fmt: skip
