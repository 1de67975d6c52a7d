"""Convert the tensor names and layouts of public weight files to those of this project, and validate shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clip.utils.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How one family of files names and stores the tensors of a backbone; by default as we do.

    A name in a file with "{part}" is stored once for each of ``parts``, the projections that we concatenate.
    """

    names: Mapping[str, str] = field(default_factory=dict)  # part of our names, from a dot on -> theirs, in this order
    parts: tuple[str, ...] = ()  # query, key and value
    transposed: tuple[str, ...] = ()  # our names of the matrices that are stored transposed
    leading: Mapping[str, int] = field(default_factory=dict)  # our name -> leading dimensions of size 1 in the file

    def names_of(self, name: str) -> list[str]:
        """Return the names in the file of the tensors that make up one of ours."""
        for ours, theirs in self.names.items():
            name = re.sub(rf"(?<![^.]){re.escape(ours)}", theirs, name)
        return [name.replace("{part}", part) for part in self.parts] if "{part}" in name else [name]

    def write(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under our names as files of this layout store them."""
        out = {}
        for name, tensor in state.items():
            names = self.names_of(name)
            stored = tensor.T if name in self.transposed else tensor[(None,) * self.leading.get(name, 0)]
            parts = stored.chunk(len(names)) if len(names) > 1 else [stored]
            out |= {theirs: part.contiguous() for theirs, part in zip(names, parts, strict=True)}
        return out

    def read(self, state: Mapping[str, Tensor], like: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
        """Check the tensors of a file of this layout and return them under our names, as float32.

        ``like`` holds our names and shapes, and may be on the meta device. Raise a UserError that lists tensors that
        are missing, unexpected, misshaped or not finite, by their names in the file.
        """
        expected = self.write(like)
        problems = [f"{name} is missing" for name in expected if name not in state]
        for name, tensor in state.items():
            if name not in expected:
                problems.append(f"{name} is unexpected")
            elif tensor.shape != (shape := expected[name].shape):
                problems.append(f"{name} has the shape {tuple(tensor.shape)} instead of {tuple(shape)}")
            elif not tensor.is_floating_point() or tensor.is_meta or tensor.layout != torch.strided:
                problems.append(f"{name} is not floating-point")
            # NaN and infinities show in the extremes, at a quarter of the cost of testing every number.
            elif not torch.stack(tensor.aminmax()).isfinite().all():
                problems.append(f"{name} is not finite")
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise UserError(f"not a complete {kind}: {', '.join(problems[:5])}{more}; get the original file")
        out = {}
        for name, tensor in like.items():
            parts = [state[theirs] for theirs in self.names_of(name)]
            found = torch.cat(parts) if len(parts) > 1 else parts[0]
            out[name] = (found.T if name in self.transposed else found.reshape(tensor.shape)).float().contiguous()
        return out

    def shape(self, state: Mapping[str, Tensor], name: str, dims: int) -> torch.Size:
        """Return the shape of a tensor of a file by our name; raise a UserError if it does not have ``dims``."""
        (theirs,) = self.names_of(name)
        shape = state[theirs].shape if theirs in state else ()
        if len(shape) != dims + self.leading.get(name, 0) or 0 in shape:
            found = f"of shape {tuple(shape)}" if theirs in state else "missing"
            raise UserError(f"{theirs} is {found}; use the file of a complete backbone with a vision transformer")
        return shape

    def count_blocks(self, names: Mapping[str, Tensor], root: str = "") -> int:
        """Count the transformer blocks of a file; at least one, so that missing tensors can be listed."""
        start = self.names_of(f"{root}transformer.resblocks.0.ln_1.")[0].partition(".0.")[0]
        block = re.compile(re.escape(start) + r"\.(\d{1,9})\.")
        count = 1 + max((int(match[1]) for match in map(block.match, names) if match), default=0)
        if count > len(names):
            raise UserError(f"the names mention {count} blocks, but there are only {len(names)} tensors")
        return count
