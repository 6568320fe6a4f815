"""What longstride raises, and the checks that Python can make by itself."""

import os

from . import _longstride

Error = _longstride.Error


class WrongType(Error, TypeError):
    """An argument of another type, or an array of other elements, than longstride takes."""


class WrongDevice(Error, RuntimeError):
    """Tensors on different devices, or on one that this build has no backend for."""


# What Python calls them.
Error.__module__ = WrongType.__module__ = WrongDevice.__module__ = "longstride"


def bytes_of(data, name="data"):
    """Anything that holds bytes as an array (n) of uint8, without a copy where that can be."""
    import numpy

    if isinstance(data, str):
        raise WrongType(f"{name} is a str; models read bytes, so give {name}.encode()")
    if type(data).__module__.split(".")[0] == "torch":
        data = data.detach().cpu().numpy()
    if isinstance(data, numpy.ndarray):
        if data.dtype != numpy.uint8:
            raise WrongType(f"{name} has elements of {data.dtype}, must have bytes (uint8)")
        return numpy.ascontiguousarray(data).reshape(-1)
    try:
        view = memoryview(data)
    except TypeError:
        raise WrongType(f"{name} is a {type(data).__name__}, must be bytes, or an array or tensor of uint8") from None
    if view.format not in ("B", "b", "c"):
        raise WrongType(f"{name} has elements of format {view.format!r}, must have bytes")
    return numpy.frombuffer(view, numpy.uint8) if view.nbytes else numpy.empty(0, numpy.uint8)


def path_of(path, name="run"):
    try:
        return os.fsdecode(path)
    except TypeError:
        raise WrongType(f"{name} is a {type(path).__name__}, must be a path") from None
