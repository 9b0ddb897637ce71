"""How the C library lays out weight matrices: column by column, unit by unit, or compressed (CBCSC)."""

from dataclasses import dataclass

import numpy as np

from deltarnn.fixed.arithmetic import IntArray
from deltarnn.prune.cbcsc import CBCSC

INDEX_BITS = 4
MAX_ELEMENTS = 64


def padded(count: int) -> int:
    """`count` rounded up to the four that a word of 8-bit weights holds."""
    return -(-count // 4) * 4


def columns(matrix: IntArray) -> IntArray:
    """(R, C) column by column, each padded to words with 0."""
    rows, count = matrix.shape
    laid = np.zeros((count, padded(rows)), dtype=np.int64)
    laid[:, :rows] = matrix.T
    return laid.ravel()


def units(matrix: IntArray, count: int, swapped: bool) -> IntArray:
    """(G·count, C): for each unit, four weights of its G rows beside each other, then the next four; columns padded.

    swapped: four weights lie as 0 2 1 3.
    """
    gates, width = matrix.shape[0] // count, matrix.shape[1]
    laid = np.zeros((gates, count, padded(width)), dtype=np.int64)
    laid[:, :, :width] = matrix.reshape(gates, count, width)
    fours = laid.reshape(gates, count, -1, 4)[..., [0, 2, 1, 3] if swapped else [0, 1, 2, 3]]
    return fours.transpose(1, 2, 0, 3).ravel()


@dataclass(frozen=True)
class Compressed:
    """A pruned matrix as CBCSC with an even number M of elements and indices of 4 bits.

    values: (C·BLEN·M,) column by column, its first pair of each element, then its second. indices: two a byte, the
    first in the low half. elements: M. length: BLEN.
    """

    values: IntArray
    indices: IntArray
    elements: int
    length: int

    @classmethod
    def of(cls, matrix: IntArray, elements: int) -> "Compressed":
        """`matrix` (R, C), of at most 16 rows an element, with the shortest BLEN that holds it."""
        rows = matrix.shape[0]
        longest = -(-rows // elements)
        length = max(1, *(int(np.count_nonzero(matrix[p::elements], axis=0).max(initial=0)) for p in range(elements)))
        # Half a weight more is kept than γ asks: floor(s γ) is then s − BLEN, however the division rounds.
        stored = CBCSC.encode(matrix, max(longest - length + 0.5, 0) / longest if length < longest else 0.0, elements)
        values, indices = (part.transpose(0, 2, 1).ravel() for part in (stored.values, stored.indices))
        return cls(values, indices[::2] | indices[1::2] << INDEX_BITS, elements, length)

    def size(self, weight_bytes: int) -> int:
        """Bytes."""
        return self.values.size * weight_bytes + self.indices.size


def best_elements(matrices: list[IntArray], weight_bytes: int) -> int:
    """The number of elements with which the matrices take the fewest bytes, each as it is or compressed; 0: none is."""
    if not matrices:
        return 0
    plain = [columns(matrix).size * weight_bytes for matrix in matrices]
    best, fewest = 0, sum(plain)
    if all(np.count_nonzero(matrix) > matrix.size * 3 // 4 for matrix in matrices):
        return 0  # indices take half a byte: it cannot pay, and the search is spared
    for elements in range(2, min(MAX_ELEMENTS, *(len(matrix) for matrix in matrices)) + 1, 2):
        taken = sum(
            min(Compressed.of(matrix, elements).size(weight_bytes), size)
            if matrix.shape[0] <= elements << INDEX_BITS
            else size
            for matrix, size in zip(matrices, plain, strict=True)
        )
        if taken < fewest:
            best, fewest = elements, taken
    return best
