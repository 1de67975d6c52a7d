"""A trained model that classifies images and texts."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor

from clip.cli import build as assembly
from clip.cli.schema import PRECISIONS, validate
from clip.config import ex
from clip.engine import trainer as runs
from clip.inference.samples import Sample, read_sample
from clip.modules.backbones.base import TextTokenizer
from clip.modules.objectives import Task
from clip.modules.prompted_model import PromptedModel
from clip.transforms import TRANSFORMS, Transform
from clip.utils.errors import UserError

MISSING = ("complete", "text", "image")  # values of the column "missing", by missing case
RESERVED = ("row", "image", "missing", "predicted")  # columns of an output that are not classes


class Predictor:
    """Classifies pairs of image and text of which one may be missing.

    Args:
        model: model in any mode; moved to the device.
        tokenizer: tokenizer of the model's backbone.
        transform: image transform of the model's backbone.
        task: classification task.
        class_names: one name per class; "class …" is prepended to a name that another column has.
        device: accelerator and precision, as ``clip.engine.trainer.devices`` returns them.
        batch_size: samples of one forward pass.
        model_config: configuration stored in the checkpoint.
        checkpoint: path of the checkpoint, to be shown to users.
    """

    def __init__(
        self,
        model: PromptedModel,
        tokenizer: TextTokenizer,
        transform: Transform,
        task: Task,
        class_names: Sequence[str],
        device: dict[str, Any],
        batch_size: int,
        model_config: Mapping[str, Any],
        checkpoint: Path | None = None,
    ):
        self.device = "cuda" if device["accelerator"] == "gpu" else "cpu"
        self.dtype = runs.DTYPES[device["precision"]]
        self.model = model.to(self.device).eval()
        self.tokenizer, self.transform, self.task = tokenizer, transform, task
        self.class_names = class_columns(class_names)
        self.batch_size, self.model_config, self.checkpoint = batch_size, model_config, checkpoint

    @classmethod
    def from_config(cls, config: dict[str, Any], given: set[str]) -> "Predictor":
        """Load the checkpoint ``load_path``; model settings that the user did not set come from it.

        Raises:
            UserError: the checkpoint or its backbone does not exist, or they do not match.
        """
        if not config["load_path"]:
            raise UserError("load_path is empty; give a checkpoint or the folder of a run")
        device = runs.devices(config["num_gpus"], PRECISIONS[str(config["precision"])])
        if runs.world(config, device) > 1:
            raise UserError("predictions run in one process; set num_gpus=1 num_nodes=1")
        built = assembly.build(config, given, adopt={"task"})
        count = built.task.num_classes
        names = built.written.get("class_names") or [f"class {i}" for i in range(count)]
        if len(names) != count or len(set(names)) != count:
            raise UserError(f"{built.path} has {count} classes and {len(set(names))} names; correct its class_names")
        return cls(
            built.model,
            built.frozen.tokenizer,
            TRANSFORMS[config["backbone"]](built.frozen.sizes.image_size),
            built.task,
            [str(name) for name in names],
            device,
            assembly.micro_batch_of(config, built, device),
            built.model_config,
            built.path,
        )

    def describe(self) -> dict[str, str]:
        """Return the run, task, backbone and method of the model, to be shown to users."""
        config = self.model_config
        return {
            "run": "/".join(self.checkpoint.parts[-4:]),  # name, version, "checkpoints", file
            "task": config["task"],
            "backbone": f"{config['backbone']} ({config['vit']})",
            "method": config["prompt_type"],
        }

    def predict(
        self,
        images: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Classify pairs of image and text.

        Args:
            images: one path, Pillow image or None per pair; None if all are missing.
            texts: one string or None per pair, where blank means missing; None if all are missing.
            batch_size: pairs of one forward pass; None for a size that suits the machine.

        Returns:
            One row per pair: the probability of each class in the column of its name; "missing", which is
            "complete", "text" or "image"; "predicted", the names of the predicted classes joined by a comma
            (the likeliest class, or for a multi-label task those above 0.5, the likeliest first).

        Raises:
            UserError: names the row, counted from 0, that has neither modality or cannot be read.
        """
        for name, values in (("images", images), ("texts", texts)):
            if isinstance(values, str | bytes | PathLike | Image.Image):  # a string is a sequence of characters
                raise UserError(f"{name} is one {type(values).__name__}; give a list, {name}=[...]")
        if images is None and texts is None:
            raise UserError("neither images nor texts are given; give at least one of them")
        images = [None] * len(texts) if images is None else list(images)
        texts = [None] * len(images) if texts is None else list(texts)
        if len(images) != len(texts):
            raise UserError(f"{len(images)} images and {len(texts)} texts are given; give None for a missing one")
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"batch_size={size} is not valid; give at least 1")
        frames = [
            self.classify([self._read(row, images, texts) for row in range(start, min(start + size, len(images)))])
            for start in range(0, len(images), size)
        ]
        return pd.concat(frames, ignore_index=True) if frames else self.classify([])

    def _read(self, row: int, images: Sequence[Any], texts: Sequence[Any]) -> Sample:
        try:
            return read_sample(images[row], texts[row], self.transform)
        except UserError as error:
            raise UserError(f"row {row}: {error}") from None

    def classify(self, samples: Sequence[Sample]) -> pd.DataFrame:
        """Classify samples in one forward pass; returns the table of ``predict``."""
        probabilities = self.task.probabilities(self.logits(samples))
        chosen = self.task.chosen(probabilities).tolist()
        order = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
        frame = pd.DataFrame(probabilities.numpy(), columns=self.class_names)
        frame["missing"] = [MISSING[sample.case] for sample in samples]
        frame["predicted"] = [
            ", ".join(self.class_names[i] for i in likeliest if is_chosen[i])
            for likeliest, is_chosen in zip(order, chosen, strict=True)
        ]
        return frame

    @torch.inference_mode()
    def logits(self, samples: Sequence[Sample]) -> Tensor:
        """Return the logits of samples, (N, C) float32 on the CPU."""
        if not samples:
            return torch.zeros(0, len(self.class_names))
        placeholder = self.transform.placeholder(lambda: None)
        tokens = self.tokenizer([sample.text or "" for sample in samples])
        batch = self.model.collate(
            [
                {
                    "image": placeholder if sample.image is None else torch.from_numpy(sample.image),
                    "tokens": ids,
                    "missing_type": torch.tensor(sample.case),
                }
                for sample, ids in zip(samples, tokens, strict=True)
            ]
        )
        batch = move_data_to_device(batch, self.device)
        image = self.transform.normalize(batch.pop("image"))
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(image, **batch).float().cpu()


def load_predictor(path: str | PathLike, vit: str | None = None) -> Predictor:
    """Load a checkpoint with default settings, on a GPU if there is one; see ``clip.load``."""
    config = ex.configurations[0]() | {"load_path": str(path), "num_gpus": min(1, torch.cuda.device_count())}
    overrides = {} if vit is None else {"vit": str(vit)}
    return Predictor.from_config(validate(config | overrides), set(overrides))


def class_columns(class_names: Sequence[str]) -> list[str]:
    """Return a distinct column name for each class, none of them in ``RESERVED``."""
    columns = []
    for name in class_names:
        column = name
        while column in RESERVED or (column != name and column in class_names):
            column = f"class {column}"
        columns.append(column)
    return columns
