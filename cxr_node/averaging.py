"""Weighted means of neighbouring rows and columns: how an image is made smaller.

Such a matrix is zero but for a band along its diagonal. It is multiplied in blocks of a few of its rows, each with no
more of the image than they weigh: less than half of the time of scipy's sparse matrices, and none of their import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LARGEST_BLOCK, _TAPS = 8, 128
"""Rows of a block, and how many places they weigh together: measured at 2,500 px to 1,280, and to 192."""
_BLOCKS_A_STRIP = 32


class _Block(NamedTuple):
    to: slice
    of: slice
    weights: Floats
    """(rows of `to`, places of `of`)."""
    turned: Floats
    """The same the other way round, in its own memory: half of the time of a view."""


class Band:
    """A matrix that is zero but for a band.

    Parameters
    ----------
    to, of : integers, shape (weights,): row and column of each weight, by ascending row; each row has one. Of two for
        one place the sum counts
    weights : float32, the same shape
    """

    def __init__(self, to: NDArray[np.intp], of: NDArray[np.intp], weights: Floats) -> None:
        self._rows = int(to[-1]) + 1
        rows_a_block = min(_LARGEST_BLOCK, max(1, _TAPS // int(np.bincount(to).max())))
        ends = [*range(0, self._rows, rows_a_block), self._rows]
        self._blocks = []
        for row, end in pairwise(ends):
            first, last = np.searchsorted(to, (row, end))
            here, start = of[first:last], int(of[first:last].min())
            dense = np.zeros((end - row, int(here.max()) + 1 - start), np.float32)
            np.add.at(dense, (to[first:last] - row, here - start), weights[first:last])
            self._blocks.append(_Block(slice(row, end), slice(start, start + dense.shape[1]), dense, dense.T.copy()))

    def down(self, values: Floats) -> Floats:
        """Average rows: (columns of the matrix, any) -> (rows of the matrix, any)."""
        return self._averaged(self._blocks, values)

    def strips(self, values: Floats) -> Iterator[tuple[slice, Floats]]:
        """As `down`, a strip at a time and where it belongs: for whole images, the system has to find new memory."""
        for first in range(0, len(self._blocks), _BLOCKS_A_STRIP):
            blocks = self._blocks[first : first + _BLOCKS_A_STRIP]
            yield slice(blocks[0].to.start, blocks[-1].to.stop), self._averaged(blocks, values)

    def _averaged(self, blocks: Sequence[_Block], values: Floats) -> Floats:
        start = blocks[0].to.start
        found = np.empty((blocks[-1].to.stop - start, values.shape[1]), np.float32)
        for block in blocks:
            np.matmul(block.weights, values[block.of], out=found[block.to.start - start : block.to.stop - start])
        return found

    def across(self, values: Floats) -> Floats:
        """Average columns: (any, columns of the matrix) -> (any, rows of the matrix)."""
        found = np.empty((values.shape[0], self._rows), np.float32)
        for block in self._blocks:
            np.matmul(values[:, block.of], block.turned, out=found[:, block.to])
        return found
