"""Classify images and texts with a trained model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import pandas as pd
import torch
from lightning_fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor

from clip.cli.build import build, choose_single_device, load_checkpoint, stated_task
from clip.cli.schema import Config
from clip.engine.trainer import DTYPES, choose_micro_batch
from clip.inference.samples import Sample, read_sample
from clip.modules.backbones import TextTokenizer
from clip.modules.objectives import Task
from clip.modules.prompted_model import PromptedModel
from clip.transforms import TRANSFORMS, Transform
from clip.utils.errors import UserError

MISSING = ("complete", "text", "image")  # values of the column "missing", by missing case
RESERVED = ("row", "image", "missing", "predicted")  # columns of an output that are not classes


@dataclass
class Predictor:
    """Classifies pairs of image and text of which one may be missing."""

    model: PromptedModel  # on the device, in evaluation mode
    tokenizer: TextTokenizer  # of the backbone
    transform: Transform  # of the backbone
    task: Task
    class_names: list[str]  # columns of the output, one per class
    device: str  # "cpu" or "cuda"
    dtype: torch.dtype  # of autocast; float32 turns it off
    batch_size: int  # samples of one forward pass
    source: dict[str, str]  # where the model comes from, shown to users: "run", "task", "backbone", "method"

    @classmethod
    def from_config(cls, config: Config) -> "Predictor":
        """Load the checkpoint ``load_path``; model settings that the user did not set come from it."""
        if not config.load_path:
            raise UserError("load_path is not set; give a checkpoint or the folder of a run")
        device = choose_single_device(config, "a prediction")
        config, checkpoint = load_checkpoint(config, "task")
        task, label_metadata = stated_task(config.task, checkpoint.content["model_config"])
        model, backbone, *_ = build(config, task, label_metadata, checkpoint)
        names = label_metadata.get("class_names") or task.class_names(label_metadata)
        if not len(names) == len(set(names)) == task.num_classes:
            raise UserError(f"{checkpoint.path} has {task.num_classes} classes, but {len(set(names))} class_names")
        size, on_gpu = config.per_gpu_batchsize, device["accelerator"] == "gpu"
        if size == "auto":
            size = choose_micro_batch(model, backbone.sizes, config.batch_size, 1, on_gpu)
        source = {
            "run": "/".join(checkpoint.path.parts[-4:]),  # name, version, "checkpoints", file
            "task": config.task,
            "backbone": f"{config.backbone} ({config.vit})",
            "method": config.prompt_type,
        }
        transform = TRANSFORMS[config.backbone](backbone.sizes.image_size)
        where = "cuda" if on_gpu else "cpu"
        columns, dtype = class_columns(map(str, names)), DTYPES[device["precision"]]
        model.cast_frozen(dtype)
        return cls(model.to(where).eval(), backbone.tokenizer, transform, task, columns, where, dtype, size, source)

    def predict(self, images: Sequence[Any] | None = None, texts: Sequence[str | None] | None = None) -> pd.DataFrame:
        """Classify image-text pairs.

        Args:
            images: one path, Pillow image or None per pair; None if all are missing.
            texts: one string or None per pair, where blank means missing; None if all are missing.

        Returns:
            One row per pair: the probability of each class in the column of its name; "missing", which is
            "complete", "text" or "image"; "predicted", the names of the predicted classes joined by a comma
            (the likeliest class, or for a multi-label task those above 0.5, the likeliest first). A UserError
            names the row, from 0, that has neither modality or cannot be read.
        """
        frames = [self.classify(samples) for samples in self._read_batches(images, texts)]
        empty = pd.DataFrame(columns=[*self.class_names, "missing", "predicted"])
        return pd.concat(frames, ignore_index=True) if frames else empty

    @torch.no_grad()  # not inference_mode: a user may train on the features
    def encode(self, images: Sequence[Any] | None = None, texts: Sequence[str | None] | None = None) -> Tensor:
        """Encode at least one image-text pair, given as in ``predict``, as the features that the classifier reads.

        They are (N, D) in float32 on the CPU. With two towers they are the image feature followed by the text feature,
        D = 1024 for ViT-B/16.
        """
        features = [self._run(self.model.features, samples) for samples in self._read_batches(images, texts)]
        if not features:
            raise UserError("images and texts are empty; give at least one pair")
        return torch.cat(features)

    def _read_batches(self, images: Sequence[Any] | None, texts: Sequence[str | None] | None) -> Iterator[list[Sample]]:
        """Check the arguments of ``predict`` and read the samples of one forward pass after another."""
        for name, values in (("images", images), ("texts", texts)):
            if isinstance(values, str | bytes | PathLike | Image.Image):  # a string is a sequence of characters
                raise UserError(f"{name} is one {type(values).__name__}; give a list, {name}=[...]")
        if images is None and texts is None:
            raise UserError("neither images nor texts are given; give at least one of them")
        images = [None] * len(texts) if images is None else list(images)
        texts = [None] * len(images) if texts is None else list(texts)
        if len(images) != len(texts):
            raise UserError(f"{len(images)} images and {len(texts)} texts are given; give None for a missing one")
        pairs = list(enumerate(zip(images, texts, strict=True)))
        for start in range(0, len(pairs), self.batch_size):
            samples = []
            for row, pair in pairs[start : start + self.batch_size]:
                try:
                    samples.append(read_sample(*pair, self.transform))
                except UserError as error:
                    raise UserError(f"row {row}: {error}") from None
            yield samples

    def _run(self, function: Callable[..., Tensor], samples: Sequence[Sample]) -> Tensor:
        """Call the model or its ``features`` on samples; return a float32 tensor on the CPU."""
        items, placeholder = [], self.transform.placeholder()
        tokens = self.tokenizer([sample.text or "" for sample in samples])
        for sample, ids in zip(samples, tokens, strict=True):
            image = placeholder if sample.image is None else torch.from_numpy(sample.image)
            items.append({"image": image, "tokens": ids, "missing_type": torch.tensor(sample.case)})
        batch = move_data_to_device(self.model.collate(items), self.device)
        image = self.transform.normalize(batch["image"])
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            return function(image, batch["tokens"], batch["missing_type"], batch["present"]).float().cpu()

    @torch.inference_mode()
    def classify(self, samples: Sequence[Sample]) -> pd.DataFrame:
        """Classify at least one sample in one forward pass; return the table of ``predict``."""
        probabilities = self.task.probabilities(self._run(self.model, samples))
        frame = pd.DataFrame(probabilities.numpy(), columns=self.class_names)
        frame["missing"] = [MISSING[sample.case] for sample in samples]
        chosen = self.task.decide(probabilities).tolist()
        order = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
        frame["predicted"] = [
            ", ".join(self.class_names[i] for i in likeliest if is_chosen[i])
            for likeliest, is_chosen in zip(order, chosen, strict=True)
        ]
        return frame


def class_columns(class_names: Iterable[str]) -> list[str]:
    """Return a distinct column name for each class, none of them in ``RESERVED``."""
    columns = list(class_names)
    for i in range(len(columns)):
        while columns[i] in RESERVED or columns.count(columns[i]) > 1:
            columns[i] = f"class {columns[i]}"
    return columns
