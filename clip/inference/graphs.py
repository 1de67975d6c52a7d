"""One missing case of a model as a graph that runs without this package, and the files it fits."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.objectives import Task
from clip.modules.prompted_model import PromptedModel, case_vector, weighted_sum
from clip.utils.errors import UserError

Inputs = dict[str, Tensor]  # "image" (B, 3, H, W) normalised, "tokens" (B, 77); what is there
LACKS = {MISSING_TEXT: "tokens", MISSING_IMAGE: "image"}  # missing case -> input that is not there
OUTPUT = "probabilities"
LARGEST_ONNX = 2**31  # bytes of one file
TRACED = 3  # samples; sizes of 0 and 1 would become constants of the graph


class OneCase(nn.Module):
    """A model for batches that all lack the same, without any look at what a sample lacks.

    Args:
        model: copied, without the tower that is not read.
        task: makes its logits probabilities.
        case: ``COMPLETE``, ``MISSING_TEXT`` or ``MISSING_IMAGE``.
    """

    def __init__(self, model: PromptedModel, task: Task, case: int):
        super().__init__()
        self.model = deepcopy(model).eval().requires_grad_(False)
        if case in model.UNREAD:
            delattr(self.model, model.UNREAD[case])
        self.task, self.case = task, case

    def forward(self, image: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Classify (B, 3, H, W) and (B, 77), what is missing left out, into (B, C)."""
        given = tokens if image is None else image
        lacks = case_vector(self.case, given.shape[0], given)
        features = self.model.features_of(lacks, image, tokens)
        heads = self.model.prompts.heads(features, self.model.classifier)
        return self.task.probabilities(weighted_sum(heads))


def trace(module: OneCase, inputs: Inputs) -> ExportedProgram:
    """Export a graph for any number of samples; ``inputs`` are an example of ``TRACED``."""
    dynamic = {name: {0: Dim.DYNAMIC} for name in inputs}
    with torch.no_grad():
        return torch.export.export(module, (), inputs, dynamic_shapes=dynamic)


def _write_pt2(program: ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def _read_pt2(path: Path) -> Callable[[Inputs], Tensor]:
    module = torch.export.load(path).module()
    return lambda inputs: module(**inputs)


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size >= LARGEST_ONNX:
        raise UserError(
            f"{path.name} would have {size:,} bytes, and onnx files hold up to {LARGEST_ONNX:,}; "
            "give export.formats=['pt2']"
        )
    torch.onnx.export(program, (), path, dynamo=True, output_names=[OUTPUT], external_data=False,
                      verbose=False)  # fmt: skip


def _read_onnx(path: Path) -> Callable[[Inputs], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(session.run([OUTPUT], arrays)[0])

    return run


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        write: a graph to a file.
        read: a file to what runs it.
        needs: packages beside torch, which requirements-dev.txt pins.
    """

    write: Callable[[ExportedProgram, Path], None]
    read: Callable[[Path], Callable[[Inputs], Tensor]]
    needs: tuple[str, ...] = ()


FORMATS = {
    "pt2": Format(_write_pt2, _read_pt2),
    "onnx": Format(_write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime")),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what exporters say of operators and packages that no graph of ours has."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
