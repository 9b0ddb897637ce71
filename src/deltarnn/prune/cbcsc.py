"""Column-balanced compressed sparse columns: the weight storage of Spartus (MATH §7, TNNLS 2022).

Per column and processing element exactly BLEN pairs (VAL, LIDX), zero-padded, so that a column's address is
column · BLEN and no column pointers are needed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltarnn.prune.column_balanced import balanced_length, check_balance, subcolumn_rows


class CBCSC:
    """A matrix stored by columns, each processing element holding at most BLEN non-zeros of each column.

    Attributes
    ----------
    values: (C, M, BLEN) the VAL of each pair, in rising LIDX, then zeros.
    indices: (C, M, BLEN) the LIDX: the row's position inside the sub-column; global row = LIDX·M + p. 0 where padded.
    shape: (R, C) of the matrix; (R,) if a vector was encoded.
    """

    def __init__(
        self, values: NDArray[Any], indices: NDArray[np.int64], shape: tuple[int, ...], like: Any = None
    ) -> None:
        if values.shape != indices.shape or values.ndim != 3:
            raise ValueError(f"values {values.shape} and indices {indices.shape} must have one shape (C, M, BLEN)")
        self.values = values
        self.indices = indices
        self.shape = shape
        self._like = like  # a torch tensor of the encoded dtype and device, or None for NumPy

    @classmethod
    def encode(cls, weight: Any, gamma: float, num_pe: int) -> "CBCSC":
        """Store a pruned `weight` (R, C) or (R,), a NumPy array or torch tensor.

        Raises
        ------
        ValueError
            If a sub-column holds more than BLEN = s − floor(s·γ) non-zeros: prune with the same γ and M first.
        """
        check_balance(gamma, num_pe)
        like = None if isinstance(weight, np.ndarray) else weight.detach().new_empty(0)
        dense = weight if isinstance(weight, np.ndarray) else weight.detach().cpu().numpy()
        if dense.ndim not in (1, 2) or dense.shape[0] == 0:
            raise ValueError(f"weight has shape {dense.shape}: must be a matrix (R, C) or a vector (R,), not empty")
        rows = dense.shape[0]
        matrix = dense.reshape(rows, -1)
        longest = int(subcolumn_rows(rows, num_pe).max())
        padded = np.zeros((longest * num_pe, matrix.shape[1]), dtype=matrix.dtype)
        padded[:rows] = matrix
        cells = padded.reshape(longest, num_pe, -1).transpose(2, 1, 0)  # (C, M, s)

        blen = balanced_length(rows, gamma, num_pe)
        filled = np.count_nonzero(cells, axis=2)
        if filled.size and filled.max() > blen:
            column, pe = (int(i) for i in np.unravel_index(int(filled.argmax()), filled.shape))
            raise ValueError(
                f"column {column} holds {filled.max()} non-zeros for processing element {pe}, but gamma={gamma:g} "
                f"with num_pe={num_pe} leaves room for {blen}: prune with column_balanced_dropout first"
            )
        # A stable sort on "is zero" moves the non-zeros to the front in rising row order.
        order = np.argsort(cells == 0, axis=2, kind="stable")[:, :, :blen]
        values = np.take_along_axis(cells, order, axis=2)
        indices = np.where(values != 0, order, 0).astype(np.int64)
        return cls(values, indices, tuple(dense.shape), like)

    @property
    def num_pe(self) -> int:
        """Number M of processing elements."""
        return int(self.values.shape[1])

    @property
    def blen(self) -> int:
        """Pairs per column and processing element."""
        return int(self.values.shape[2])

    @property
    def index_bits(self) -> int:
        """bits(LIDX): enough for the longest sub-column."""
        return (-(-self.shape[0] // self.num_pe) - 1).bit_length()

    def _rows(self) -> NDArray[np.int64]:
        """(C, M, BLEN) global row of each pair. Padding points at row p, where it adds 0."""
        rows = self.indices * self.num_pe + np.arange(self.num_pe)[:, None]
        # An element without any row stores only padding.
        return np.asarray(np.minimum(rows, self.shape[0] - 1), dtype=np.int64)

    def decode(self) -> Any:
        """The matrix (or vector), of the type and dtype that was encoded."""
        dense = np.zeros((self.shape[0], self.values.shape[0]), dtype=self.values.dtype)
        columns = np.broadcast_to(np.arange(self.values.shape[0])[:, None, None], self.values.shape)
        np.add.at(dense, (self._rows(), columns), self.values)
        return self._return(dense.reshape(self.shape))

    def matvec(self, x: Any) -> Any:
        """weight @ x for x (C,): only columns with x ≠ 0 are touched, and of them only the stored pairs.

        A vector that was encoded counts as one column: x has one element. Integers stay exact: their result is int64.
        """
        vector = x if isinstance(x, np.ndarray) else np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        if vector.shape != (self.values.shape[0],):
            raise ValueError(f"x has shape {vector.shape}: must be ({self.values.shape[0]},), one value per column")
        common = np.result_type(self.values, vector)
        dtype = np.dtype(np.int64) if common.kind in "iub" else common
        active = np.flatnonzero(vector)
        products = self.values[active].astype(dtype) * vector[active, None, None]
        result = np.zeros(self.shape[0], dtype=dtype)
        np.add.at(result, self._rows()[active], products)
        return self._return(result)

    def packed_words(self, value_bits: int = 8) -> NDArray[np.uint64]:
        """(C, BLEN, M) memory words unsigned(VAL) << bits(LIDX) | LIDX, in the order in which the PEs read them.

        Parameters
        ----------
        value_bits: width of VAL, two's complement. The values must be whole numbers (stored integers of a Q format).
        """
        whole = np.asarray(self.values, dtype=np.float64)
        limit = 1 << (value_bits - 1)
        if (whole != np.rint(whole)).any():
            raise ValueError(
                "CBCSC words hold whole numbers: encode the stored integers of a Q format (QFormat.to_int)"
            )
        if whole.size and not (-limit <= whole.min() and whole.max() < limit):
            raise ValueError(
                f"values from {whole.min():g} to {whole.max():g} do not fit in {value_bits} bits "
                f"({-limit} to {limit - 1})"
            )
        unsigned = whole.astype(np.int64) & ((1 << value_bits) - 1)
        words = (unsigned << self.index_bits) | self.indices
        return words.transpose(0, 2, 1).astype(np.uint64)

    @classmethod
    def from_packed_words(cls, words: NDArray[np.uint64], shape: tuple[int, ...], value_bits: int = 8) -> "CBCSC":
        """Read back `packed_words` (C, BLEN, M) of a matrix of `shape`; values are int64."""
        if words.ndim != 3:
            raise ValueError(f"words have shape {words.shape}: must be (C, BLEN, M)")
        index_bits = (-(-shape[0] // words.shape[2]) - 1).bit_length()
        pairs = words.transpose(0, 2, 1).astype(np.int64)
        unsigned = pairs >> index_bits
        values = np.where(unsigned >= 1 << (value_bits - 1), unsigned - (1 << value_bits), unsigned)
        return cls(values, pairs & ((1 << index_bits) - 1), shape)

    def _return(self, array: NDArray[Any]) -> Any:
        if self._like is None:
            return array
        import torch

        return torch.from_numpy(array).to(device=self._like.device)
