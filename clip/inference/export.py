"""The command export: a trained model as files that run without this package."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.inference.graphs import FORMATS, LACKS, TRACED, Format, OneCase, quiet, trace
from clip.inference.predictor import Predictor
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.objectives import TASK_TYPES
from clip.modules.prompted_model import case_vector
from clip.modules.prompts.base import check_choice
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

GRAPHS = {"complete": COMPLETE, "missing_text": MISSING_TEXT, "missing_image": MISSING_IMAGE}
CLOSE = 1e-5  # between the probabilities of a file and of the model
CHECKED = (1, 5)  # samples of the batches that are compared
ABOUT, TOKENIZER = "model.json", "tokenizer"


def export(config: dict[str, Any], given: set[str]) -> None:
    """Write ``load_path`` to the folder ``export.target``.

    Raises:
        UserError: a setting is wrong, the folder is there already, or what was written does not
            say what the model says.
    """
    target, formats = Path(config["export"]["target"]), config["export"]["formats"]
    if not config["load_path"]:
        raise UserError("export needs load_path=, a checkpoint or the folder of a run")
    if target.exists():
        raise UserError(f"export.target={target} is there already; give another name or remove it")
    for name in formats:
        _check_format(name)
    predictor = Predictor.from_config(config | {"num_gpus": 0}, given)
    with _whole_folder(target) as folder:
        for name, case in GRAPHS.items():
            for path, off in write_graphs(predictor, case, folder / name, formats):
                print(f"{path.name}: within {off:.1e} of the model")
        (folder / TOKENIZER).mkdir()
        predictor.tokenizer.save(folder / TOKENIZER)
        text = json.dumps(about(predictor, formats), indent=2, ensure_ascii=False)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
    print(f"written: {target}")


def _check_format(name: str) -> None:
    check_choice("export.formats", name, FORMATS)
    if absent := [package for package in FORMATS[name].needs if not find_spec(package)]:
        raise UserError(
            f"export.formats={name} needs {', '.join(absent)}; install the versions that requirements-dev.txt names"
        )


@contextlib.contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``target`` when the block ends well, else it is gone."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_graphs(predictor: Predictor, case: int, place: Path, formats: Sequence[str]) -> Iterator[tuple[Path, float]]:
    """Write one missing case in every format, read it back and compare it with the model.

    Args:
        predictor: its model is on the CPU.
        case: a constant of ``clip.missing``.
        place: of the files, without their endings.
        formats: keys of ``FORMATS``.

    Yields:
        Each file, and the largest difference between two probabilities.

    Raises:
        UserError: it is over ``CLOSE``.
    """
    inputs = example(predictor, TRACED)
    inputs.pop(LACKS.get(case), None)
    with quiet():
        program = trace(OneCase(predictor.model, predictor.task, case), inputs)
    for name in formats:
        path = place.with_suffix(f".{name}")
        with quiet():
            FORMATS[name].write(program, path)
            off = difference(predictor, case, FORMATS[name], path)
        if not off <= CLOSE:  # NaN too
            raise UserError(
                f"{path.name} would be {off:.1e} off the model's probabilities, over {CLOSE:.0e}; "
                f"nothing was written; leave {name} out of export.formats"
            )
        yield path, off


def example(predictor: Predictor, size: int) -> dict[str, Tensor]:
    """Draw random images and texts of several lengths; the last text fills all positions."""
    side, tokenizer = predictor.transform.size, predictor.tokenizer
    generator = torch.Generator().manual_seed(size)
    tokens = torch.zeros(size, tokenizer.context, dtype=torch.long)
    for number, row in enumerate(tokens, 1):
        length = tokenizer.context * number // size
        row[:length] = torch.randint(tokenizer.start, (length,), generator=generator)
        row[0], row[length - 1] = tokenizer.start, tokenizer.end
    return {"image": torch.randn(size, 3, side, side, generator=generator), "tokens": tokens}


@torch.inference_mode()
def difference(predictor: Predictor, case: int, kind: Format, path: Path) -> float:
    """Compare a file with the model as training and test run it, on random inputs."""
    run, off = kind.read(path), []
    for size in CHECKED:
        inputs = example(predictor, size)
        logits = predictor.model(**inputs, missing_type=case_vector(case, size, inputs["tokens"]))
        inputs.pop(LACKS.get(case), None)
        off.append((run(inputs) - predictor.task.probabilities(logits)).abs().flatten())
    return float(torch.cat(off).max())


def about(predictor: Predictor, formats: Sequence[str]) -> dict[str, Any]:
    """Say what whoever runs the files must know."""
    task, model_config = predictor.task, predictor.model_config
    kind = next(kind for kind, row in TASK_TYPES.items()
                if replace(row, num_classes=task.num_classes) == task)  # fmt: skip
    return {
        "graphs": {name: [i for i in ("image", "tokens") if i != LACKS.get(case)]
                   for name, case in GRAPHS.items()},
        "formats": list(formats),
        "task": model_config["task"],
        "task_type": kind,
        "class_names": predictor.class_names,
        "image_size": predictor.transform.size,
        "image_mean": ClipTransform.mean,
        "image_std": ClipTransform.std,
        "context_length": predictor.tokenizer.context,
        "tokenizer": TOKENIZER,
        "prompt_type": model_config["prompt_type"],
        "backbone_sha256": model_config["backbone_sha256"],
    }  # fmt: skip
