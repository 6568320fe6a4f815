"""Attention for arrays of numpy, and the door to that for tensors of PyTorch."""

from __future__ import annotations

import math

from ._errors import Error, WrongType
from ._pattern import Pattern, planned

TYPES = ("float32", "bfloat16", "float16")


def check_types(types, **arrays):
    for name, array in arrays.items():
        if array.dtype not in types:
            raise WrongType(f"{name}: its elements must be float32, bfloat16 or float16, they are {array.dtype}")


def is_tensor(array) -> bool:
    return hasattr(array, "requires_grad")


def scale_of(scale, width):
    return 1 / math.sqrt(width) if scale is None else float(scale)


def check_layout(layout):
    if layout not in ("bhnd", "bnhd"):
        raise Error(f"layout {layout!r}: it is bhnd (batch, heads, positions, width) or bnhd")


def check_arrays(**arrays):
    for name, array in arrays.items():
        if not (hasattr(array, "ndim") and hasattr(array, "dtype")):
            raise WrongType(f"{name} is a {type(array).__name__}, must be an array of numpy or a tensor of PyTorch")
        if array.ndim != 4:
            raise Error(f"{name} has {array.ndim} axes, must have 4")
    first, *others = arrays.items()
    for name, array in others:
        if is_tensor(array) != is_tensor(first[1]):
            raise WrongType(f"{name} is a {type(array).__name__}, {first[0]} a {type(first[1]).__name__}; give one kind")


def attention(q, k, v, pattern: str | Pattern = "fixed:128,32", scale: float | None = None, layout: str = "bhnd", return_lse: bool = False):
    """softmax(scale * q k') v over the keys that ``pattern`` allows each query, for any number of positions.

    q and k are (batch, heads, positions, width), or with layout="bnhd" (batch, positions, heads, width); v may have another
    width. Tensors of PyTorch (float32, bfloat16, float16) give a tensor with gradients, arrays of numpy (float32) an array.
    ``scale`` is 1 / sqrt(width) if it is None. A query that may look at nothing gets 0. With ``return_lse`` the result is a
    pair with the natural log of the sum of exp of each query's scores, float32 (batch, heads, positions), which has no
    gradient. Raises longstride.Error, a ValueError; where types or devices are wrong, it is a TypeError or RuntimeError too.
    """
    if is_tensor(q):
        # By this name it takes a quarter of the time of a relative import. Arguments are looked at there, once for calls alike.
        import longstride._torch as of_tensors

        return of_tensors.attention(q, k, v, pattern, scale, layout, return_lse)
    check_layout(layout)
    check_arrays(q=q, k=k, v=v)
    check_types(TYPES, q=q, k=k, v=v)
    import numpy

    q, k, v = (_rows(array, layout) for array in (q, k, v))
    o = numpy.empty((*q.shape[:3], v.shape[3]), q.dtype)
    lse = numpy.empty((q.shape[0], q.shape[2], q.shape[1]), numpy.float32)
    planned(str(pattern), q.shape[1], q.shape[2], "cpu").forward(q, k, v, o, lse, scale_of(scale, q.shape[3]))
    o = _from_rows(o, layout)
    return (o, lse) if return_lse else o


def attention_backward(q, k, v, o, lse, d_o, pattern: str | Pattern = "fixed:128,32", scale: float | None = None, layout: str = "bhnd"):
    """The gradients of q, k and v for that of o, arrays of numpy; ``o`` and ``lse`` are what attention() returned."""
    check_layout(layout)
    check_arrays(q=q, k=k, v=v, o=o, d_o=d_o)
    if is_tensor(q):
        raise WrongType("attention_backward is for arrays of numpy; tensors have backward()")
    check_types(TYPES, q=q, k=k, v=v, o=o, d_o=d_o)
    import numpy

    q, k, v, o, d_o = (_rows(array, layout) for array in (q, k, v, o, d_o))
    lse = numpy.ascontiguousarray(lse)
    if lse.dtype != numpy.float32 or lse.ndim != 3:
        raise WrongType(f"lse is {lse.dtype} with {lse.ndim} axes, must be float32 (batch, heads, positions)")
    gradients = [numpy.empty(array.shape, array.dtype) for array in (q, k, v)]
    planned(str(pattern), q.shape[1], q.shape[2], "cpu").backward(
        q, k, v, o, lse, d_o, *gradients, scale_of(scale, q.shape[3])
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
