"""Sparse attention with patterns, for numpy and PyTorch.

    o = longstride.attention(q, k, v, pattern="fixed:128,32")

docs/patterns.md of longstride says what patterns there are.
"""

import functools
import math

from . import _longstride
from ._longstride import Error

__version__ = _longstride.version()
__all__ = ["Error", "Pattern", "attention", "attention_backward"]


@functools.lru_cache(maxsize=64)
def _planned(pattern, positions, heads, device):
    return _longstride.Attention(pattern, positions, heads, device)


class Pattern:
    """Which earlier positions each position may look at: ``Pattern("strided:128")``.

    Patterns of several heads are written "window:64|stride:64"; ``heads`` is then their number.
    """

    def __init__(self, text, heads=None):
        self.text = str(text)
        self.heads = self.text.count("|") + 1 if heads is None else int(heads)
        _planned(self.text, 1, self.heads, "cpu")  # what is no pattern is said here

    def allows(self, query, key, head=0):
        """May the query at this position look at the key at that one?"""
        if query < 0 or key < 0:
            raise Error(f"query {query} and key {key}: positions begin at 0")
        return _planned(self.text, max(query, key) + 1, self.heads, "cpu").allows(head, query, key)

    def pairs(self, positions):
        """How many pairs of query and key are allowed, over all heads."""
        return _planned(self.text, positions, self.heads, "cpu").pairs()

    def to_dense(self, positions, head=0):
        """The pattern as a mask, (positions, positions) of bool: a row a query, a column a key."""
        import numpy

        mask = numpy.empty((positions, positions), numpy.uint8)
        _planned(self.text, positions, self.heads, "cpu").fill_dense(head, mask)
        return mask.view(numpy.bool_)

    def to_block_mask(self, positions, device="cpu"):
        """The pattern as a BlockMask of FlexAttention."""
        from ._torch import block_mask

        return block_mask(self, positions, device)

    def __eq__(self, other):
        return isinstance(other, Pattern) and (self.text, self.heads) == (other.text, other.heads)

    def __hash__(self):
        return hash((self.text, self.heads))

    def __str__(self):
        return self.text

    def __repr__(self):
        return f"Pattern({self.text!r})" if self.heads == self.text.count("|") + 1 else f"Pattern({self.text!r}, heads={self.heads})"


def _is_torch(array):
    return type(array).__module__.split(".")[0] == "torch" or hasattr(array, "requires_grad")


def _check_layout(layout):
    if layout not in ("bhnd", "bnhd"):
        raise Error(f"layout {layout!r}: it is bhnd (batch, heads, positions, width) or bnhd")


def _check_axes(**arrays):
    for name, array in arrays.items():
        if array.ndim != 4:
            raise Error(f"{name} has {array.ndim} axes, must have 4")


def _scale_of(scale, width):
    return 1 / math.sqrt(width) if scale is None else float(scale)


def attention(q, k, v, pattern="fixed:128,32", scale=None, layout="bhnd", return_lse=False):
    """softmax(scale * q k') v over the keys that ``pattern`` allows each query, for any number of positions.

    q and k are (batch, heads, positions, width), or with layout="bnhd" (batch, positions, heads, width); v may have another
    width. Tensors of PyTorch (float32, bfloat16, float16) give a tensor with gradients, arrays of numpy (float32) an array.
    ``scale`` is 1 / sqrt(width) if it is None. A query that may look at nothing gets 0. With ``return_lse`` the result is a
    pair with the natural log of the sum of exp of each query's scores, float32 (batch, heads, positions), which has no
    gradient. Raises longstride.Error, a ValueError.
    """
    _check_layout(layout)
    _check_axes(q=q, k=k, v=v)
    if _is_torch(q):
        from ._torch import attention as of_tensors

        return of_tensors(q, k, v, str(pattern), scale, layout, return_lse)
    import numpy

    q, k, v = (_rows(array, layout) for array in (q, k, v))
    o = numpy.empty((*q.shape[:3], v.shape[3]), q.dtype)
    lse = numpy.empty((q.shape[0], q.shape[2], q.shape[1]), numpy.float32)
    _planned(str(pattern), q.shape[1], q.shape[2], "cpu").forward(q, k, v, o, lse, _scale_of(scale, q.shape[3]))
    o = _from_rows(o, layout)
    return (o, lse) if return_lse else o


def attention_backward(q, k, v, o, lse, d_o, pattern="fixed:128,32", scale=None, layout="bhnd"):
    """The gradients of q, k and v for that of o, arrays of numpy; ``o`` and ``lse`` are what attention() returned."""
    _check_layout(layout)
    _check_axes(q=q, k=k, v=v, o=o, d_o=d_o)
    import numpy

    q, k, v, o, d_o = (_rows(array, layout) for array in (q, k, v, o, d_o))
    gradients = [numpy.empty(array.shape, array.dtype) for array in (q, k, v)]
    _planned(str(pattern), q.shape[1], q.shape[2], "cpu").backward(
        q, k, v, o, numpy.ascontiguousarray(lse), d_o, *gradients, _scale_of(scale, q.shape[3])
    )
    return tuple(_from_rows(gradient, layout) for gradient in gradients)


def _rows(array, layout):
    """(batch, positions, heads, width), neighbours of the last axis beside each other in memory."""
    import numpy

    array = array.transpose(0, 2, 1, 3) if layout == "bhnd" else array
    if any(stride <= 0 for stride in array.strides) or array.strides[3] != array.itemsize:
        array = numpy.ascontiguousarray(array)
    return array


def _from_rows(array, layout):
    return array.transpose(0, 2, 1, 3) if layout == "bhnd" else array
