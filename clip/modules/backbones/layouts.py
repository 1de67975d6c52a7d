"""Names and shapes of a backbone's tensors in public files, translated to ours and checked."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clip.modules.layers import HEAD_WIDTH
from clip.utils.errors import UserError

DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
MAX_NAMES = 5  # listed in a message


@dataclass(frozen=True)
class Layout:
    """How one family of files names and stores the tensors of a backbone; by default as we do.

    Attributes:
        names: beginning of our name -> beginning of the name in the file. "{}" is the number of a block. A name with
            "{part}" is stored once for each of ``parts``; we concatenate them.
        parts: names of the query, key and value projections.
        transposed: our names of the matrices that are stored transposed.
        leading: our name -> number of leading dimensions of size 1 in the file.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    leading: Mapping[str, int] = field(default_factory=dict)

    def names_of(self, name: str) -> list[str]:
        """Return the names in the file of the tensors that make up one of ours."""
        for ours, theirs in self.names.items():
            if match := re.match(re.escape(ours).replace(r"\{\}", r"(\d+)"), name):
                parts = self.parts if "{part}" in theirs else ("",)
                return [theirs.format(*match.groups(), part=part) + name[match.end() :] for part in parts]
        return [name]

    def write(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under our names as files of this layout store them."""
        out = {}
        for name, tensor in state.items():
            names = self.names_of(name)
            stored = tensor.T if name in self.transposed else tensor[(None,) * self.leading.get(name, 0)]
            parts = stored.chunk(len(names)) if len(names) > 1 else [stored]
            out |= {theirs: part.contiguous() for theirs, part in zip(names, parts, strict=True)}
        return out

    def read(self, stored: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the stored tensors under our names and in the shapes of ``like``, as float32."""
        out = {}
        for name, tensor in like.items():
            parts = [stored[theirs] for theirs in self.names_of(name)]
            found = torch.cat(parts) if len(parts) > 1 else parts[0]
            found = found.T if name in self.transposed else found.reshape(tensor.shape)
            out[name] = found.float().contiguous()
        return out

    def count_blocks(self, names: Mapping[str, Tensor], root: str = "") -> int:
        """Count the transformer blocks of a file; at least one, so that missing tensors can be listed.

        Raises:
            UserError: more blocks are numbered than there are tensors.
        """
        start = self.names_of(f"{root}transformer.resblocks.0.ln_1.weight")[0].partition(".0.")[0]
        block = re.compile(re.escape(start) + r"\.(\d{1,9})\.")
        count = 1 + max((int(match[1]) for match in map(block.match, names) if match), default=0)
        if count > len(names):
            raise UserError(f"the names mention {count} blocks, but there are only {len(names)} tensors")
        return count


@contextlib.contextmanager
def size_errors(kind: str) -> Iterator[None]:
    """Turn what fails while sizes are read from the tensors of a ``kind`` of backbone into a UserError."""
    try:
        yield
    except KeyError as missing:
        raise UserError(f"the tensor {missing} is missing; use the file of a complete {kind}") from None
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"the tensors are not those of a {kind}: {error}") from None


def check_head_width(kind: str, width: int) -> None:
    """Check that a tower can have heads of ``HEAD_WIDTH`` channels, which its tensors do not show.

    Raises:
        UserError: the width is not a multiple of it.
    """
    if width % HEAD_WIDTH or not width:
        raise UserError(f"the {kind} has a width of {width}, which is not a multiple of {HEAD_WIDTH}")


def validate_state_dict(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], kind: str) -> None:
    """Check that tensors are exactly those of a backbone.

    Args:
        state: tensors of the file.
        expected: names and shapes in the same layout; may be on the meta device.
        kind: kind of backbone, for the message.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or type, or not finite; lists their names.
    """
    common = {name: state[name] for name in expected if name in state}
    numeric = {name: tensor for name, tensor in common.items() if tensor.dtype in DTYPES
               and tensor.layout == torch.strided and tensor.device.type == "cpu"}  # fmt: skip
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "misshaped": [
            f"{name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            for name, tensor in common.items()
            if tensor.shape != expected[name].shape
        ],
        "not floating-point": [name for name in common if name not in numeric],
        # NaN and infinities show in the extremes, at a quarter of the cost of testing every number.
        "not finite": [
            name
            for name, tensor in numeric.items()
            if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all()
        ],
    }
    found = [
        f"{len(names)} {problem} ({', '.join(names[:MAX_NAMES])}{', …' if len(names) > MAX_NAMES else ''})"
        for problem, names in problems.items()
        if names
    ]
    if found:
        raise UserError(f"not a complete {kind}: {'; '.join(found)}; get the original file")
