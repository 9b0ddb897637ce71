"""Converts sequences (batched, batch-first, unbatched, packed) to the backends' layout (T, B, I), and results back."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from deltarnn.nn.errors import ShapeError


class Layout(NamedTuple):
    """How a caller's input was laid out, and the way back.

    lengths: (B,) int64 on the CPU for packed input, longest first; None where all samples have T steps.
    """

    batch_first: bool
    batched: bool = True
    lengths: Tensor | None = None
    packed: PackedSequence | None = None

    @staticmethod
    def of(sequence: Tensor | PackedSequence, batch_first: bool) -> tuple[Tensor, "Layout"]:
        """`sequence` as (T, B, I), and its layout."""
        if isinstance(sequence, PackedSequence):
            in_order = PackedSequence(sequence.data, sequence.batch_sizes)
            padded, lengths = pad_packed_sequence(in_order)
            return padded, Layout(batch_first, lengths=lengths, packed=sequence)
        if not isinstance(sequence, Tensor):
            raise TypeError(f"input is a {type(sequence).__name__}: must be a Tensor or a PackedSequence")
        if sequence.dim() == 2:
            return sequence.unsqueeze(1), Layout(batch_first, batched=False)
        if sequence.dim() != 3:
            shape = "(batch, time, features)" if batch_first else "(time, batch, features)"
            raise ShapeError(
                f"input has shape {tuple(sequence.shape)}: must have 3 dimensions {shape}, or 2 for one sequence"
            )
        return sequence.transpose(0, 1) if batch_first else sequence, Layout(batch_first)

    def restore(self, output: Tensor) -> Tensor | PackedSequence:
        """An output (T, B, H) in the caller's layout."""
        if self.packed is not None:
            assert self.lengths is not None
            data = pack_padded_sequence(output, self.lengths).data
            return PackedSequence(
                data, self.packed.batch_sizes, self.packed.sorted_indices, self.packed.unsorted_indices
            )
        if not self.batched:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output

    def map_steps(self, function: Callable[[Tensor], Tensor], sequence: Tensor) -> Tensor:
        """An element-wise function of (T, B, I): of the data alone where it is packed, in the order of nn.GRU there."""
        if self.lengths is None:
            return function(sequence)
        packed = pack_padded_sequence(sequence, self.lengths)
        return pad_packed_sequence(packed._replace(data=function(packed.data)))[0]

    def sort(self, tensor: Tensor, dim: int) -> Tensor:
        """A per-sample tensor of the caller in the order of the (T, B, I) form."""
        indices = None if self.packed is None else self.packed.sorted_indices
        return tensor if indices is None else tensor.index_select(dim, indices)

    def unsort(self, tensor: Tensor, dim: int) -> Tensor:
        """The inverse of `sort`."""
        indices = None if self.packed is None else self.packed.unsorted_indices
        return tensor if indices is None else tensor.index_select(dim, indices)


def reverse(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """A sequence (T, B, I) backwards in time, each sample within its own length; its own inverse."""
    if lengths is None:
        return sequence.flip(0)
    steps = torch.arange(sequence.shape[0], device=sequence.device)[:, None]
    ends = lengths.to(sequence.device)
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    return sequence.gather(0, source[..., None].expand_as(sequence))
