"""A trained model that answers for images and texts."""

from collections.abc import Mapping, Sequence
from os import PathLike
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
from clip.inference.samples import MISSING, Sample, read_sample
from clip.modules.backbones import TextTokenizer
from clip.modules.objectives import Task
from clip.modules.prompted_model import PromptedModel
from clip.transforms import TRANSFORMS, Transform
from clip.utils.errors import UserError

ABOUT = ("row", "image", "missing", "predicted")  # columns that no class may be named as
JOIN = ", "  # between the names of several predicted classes


class Predictor:
    """Classifies images and texts of which one may be missing.

    Args:
        model: moved to the device.
        tokenizer: of its backbone.
        transform: of its backbone.
        task: what is predicted.
        class_names: a name a class.
        device: of ``runs.devices``.
        batch_size: samples of one forward pass, unless ``predict`` is told otherwise.
        model_config: what the checkpoint says of its model.

    Attributes:
        class_names: as given; "class …" is put before one that is named as another column.
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
    ):
        self.device = "cuda" if device["accelerator"] == "gpu" else "cpu"
        self.dtype = runs.DTYPES[device["precision"]]
        self.model = model.to(self.device).eval()
        self.tokenizer, self.transform, self.task = tokenizer, transform, task
        self.class_names = columns(class_names)
        self.batch_size, self.model_config = batch_size, model_config

    @classmethod
    def from_config(cls, config: dict[str, Any], given: set[str]) -> "Predictor":
        """Load the checkpoint ``load_path``; all that the user did not give is taken from it.

        Args:
            config: checked settings; those of the model are set here.
            given: names of the settings that the user gave.

        Raises:
            UserError: there is no such checkpoint or backbone, or they do not belong together.
        """
        device = runs.devices(config["num_gpus"], PRECISIONS[str(config["precision"])])
        if runs.world(config, device) > 1:
            raise UserError("predictions are made in one process: give num_gpus=1 num_nodes=1")
        built = assembly.build(config, given, adopt={"task"})
        return cls(
            built.model,
            built.frozen.tokenizer,
            TRANSFORMS[config["backbone"]](built.frozen.sizes.image_size),
            built.task,
            _class_names(built),
            device,
            assembly.micro_batch_of(config, built, device),
            built.model_config,
        )

    def predict(
        self,
        images: Sequence[Any] | None = None,
        texts: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Classify pairs of image and text.

        Args:
            images: a path, a Pillow image or None a row; None if all are missing.
            texts: a string or None a row, a blank one being missing; None if all are missing.
            batch_size: rows of one forward pass; None for what suits the machine.

        Returns:
            One row a pair: a probability a class under the class's name; "missing", which is
            "complete", "text" or "image"; "predicted", the names of the classes that the model
            chooses, joined by a comma: the likeliest, or where a sample may have several classes
            those above one half, if any.

        Raises:
            UserError: names the row that lacks both or whose image cannot be read; rows are
                counted from 0, as in the result.
        """
        if images is None and texts is None:
            raise UserError("predict needs images, texts or both")
        images, texts = _listed("images", images), _listed("texts", texts)
        images = [None] * len(texts) if images is None else images
        texts = [None] * len(images) if texts is None else texts
        if len(images) != len(texts):
            raise UserError(f"{len(images)} images and {len(texts)} texts; give None for a gap")
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"batch_size={size} is not valid; give at least 1")
        frames = [
            self.answer([self.read(images[row], texts[row], f"row {row}")
                         for row in range(start, min(start + size, len(images)))])
            for start in range(0, len(images), size)
        ]  # fmt: skip
        return pd.concat(frames or [self.answer([])], ignore_index=True)

    def read(self, image: Any, text: Any, place: str) -> Sample:
        """Read one row as ``samples.read_sample`` does."""
        return read_sample(image, text, place, self.transform)

    def answer(self, samples: Sequence[Sample]) -> pd.DataFrame:
        """Classify samples in one forward pass; the result is that of ``predict``."""
        probabilities = self.task.probabilities(self.logits(samples))
        chosen = self.task.decide(probabilities).tolist()
        likeliest = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
        names = self.class_names
        frame = pd.DataFrame(probabilities.numpy(), columns=names)
        frame["missing"] = [MISSING[sample.state] for sample in samples]
        frame["predicted"] = [JOIN.join(names[i] for i in order if row[i])
                              for order, row in zip(likeliest, chosen, strict=True)]  # fmt: skip
        return frame

    @torch.inference_mode()
    def logits(self, samples: Sequence[Sample]) -> Tensor:
        """Run samples through the model, (N, C) float32 on the CPU."""
        if not samples:
            return torch.zeros(0, len(self.class_names))
        empty = self.transform.placeholder()
        tokens = self.tokenizer([sample.text or "" for sample in samples])
        batch = self.model.collate(
            [{"image": empty if sample.image is None else sample.image, "tokens": ids,
              "missing_type": torch.tensor(sample.state)}
             for sample, ids in zip(samples, tokens, strict=True)]
        )  # fmt: skip
        batch = move_data_to_device(batch, self.device)
        image = self.transform.normalize(batch.pop("image"))
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(image, **batch).float().cpu()


def load_predictor(path: str | PathLike, vit: str | None = None) -> Predictor:
    """Load a checkpoint with the default settings, on a GPU if there is one; see ``clip.load``."""
    config = ex.configurations[0]() | {"load_path": str(path)}
    config |= {"num_gpus": min(1, torch.cuda.device_count())}
    config |= {} if vit is None else {"vit": str(vit)}
    return Predictor.from_config(validate(config), set() if vit is None else {"vit"})


def _listed(name: str, given: Any) -> list[Any] | None:
    if isinstance(given, str | bytes | PathLike | Image.Image):  # a string is a list of letters
        raise UserError(f"{name} is one {type(given).__name__}; give a list, {name}=[...]")
    return None if given is None else list(given)


def columns(class_names: Sequence[str]) -> list[str]:
    """Name a column for each class, put apart from the other columns and from one another."""
    out = []
    for name in class_names:
        column = name
        while column in ABOUT or (column != name and column in class_names):
            column = f"class {column}"
        out.append(column)
    return out


def _class_names(built: assembly.Built) -> list[str]:
    num_classes = built.task.num_classes
    names = built.written.get("class_names") or [f"class {i}" for i in range(num_classes)]
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise UserError(
            f"{built.path} names {len(names)} classes, {len(set(names))} of them different, and "
            f"has {num_classes}; write class_names into its model_config again"
        )
    return [str(name) for name in names]
