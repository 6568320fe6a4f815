"""Sparse Transformers over bytes: attention with patterns, models, training, for numpy and PyTorch.

    o = longstride.attention(q, k, v, pattern="fixed:128,32")
    model = longstride.Model("runs/fortunes")

docs/python.md of longstride has the manual, docs/patterns.md the patterns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _longstride
from ._attention import attention, attention_backward
from ._errors import Error, WrongDevice, WrongType
from ._model import Entropies, Model
from ._pattern import Drawing, Pattern, Reach
from ._train import train

if TYPE_CHECKING:
    from ._transformer import SparseTransformer

__version__ = _longstride.version()
__all__ = [
    "Drawing",
    "Entropies",
    "Error",
    "Model",
    "Pattern",
    "Reach",
    "SparseTransformer",
    "WrongDevice",
    "WrongType",
    "attention",
    "attention_backward",
    "train",
]


# PyTorch takes longer to import than all else, and only this class needs it.
def __getattr__(name):
    if name != "SparseTransformer":
        raise AttributeError(f"module 'longstride' has no attribute {name!r}")
    try:
        from ._transformer import SparseTransformer
    except ModuleNotFoundError as missing:
        raise ImportError("longstride.SparseTransformer needs PyTorch: pip install torch") from missing
    globals()[name] = SparseTransformer
    return SparseTransformer


def __dir__():
    return sorted({*globals(), *__all__})
