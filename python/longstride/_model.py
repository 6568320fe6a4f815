"""A run's model: the engine of `longstride eval`, `sample` and `compress`, in Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterator, NamedTuple

from . import _longstride
from ._errors import Error, bytes_of, path_of

if TYPE_CHECKING:
    import numpy


class Entropies(NamedTuple):
    """What a model says of each byte, two arrays (n) of float32."""

    bits: numpy.ndarray  # -log2 of the byte's probability
    entropy: numpy.ndarray  # of the distribution that was predicted for it, in bits


class Model:
    """The model of a run, a directory that ``longstride train`` or ``longstride.train`` wrote.

    Data are bytes, or arrays or tensors of uint8. Long calls let other threads run, and Ctrl-C ends them.
    ``device`` is cpu, cuda, cuda:1, ... or auto; ``precision`` f32, bf16, f16 or auto; ``threads`` 0 all that there are;
    ``step`` that of a checkpoint or None for the best; ``int8`` takes weights in eight bits.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        step: int | None = None,
        int8: bool = False,
    ):
        self.run: str | None = path_of(run)
        self.metrics: list[dict[str, float]] = []
        self._engine = _longstride.Model(self.run, device, precision, threads, -1 if step is None else step, int8)

    @classmethod
    def _trained(cls, engine: _longstride.Model, run: str | None, metrics: list[dict[str, float]]) -> Model:
        model = cls.__new__(cls)
        model.run, model.metrics, model._engine = run, metrics, engine
        return model

    @property
    def context(self) -> int:
        """Bytes that it sees at most."""
        return self._engine.context

    @property
    def parameters(self) -> int:
        """How many."""
        return self._engine.parameters

    @property
    def step(self) -> int:
        """Of training."""
        return self._engine.step

    @property
    def kind(self) -> str:
        """text, image or audio"""
        return self._engine.kind

    @property
    def pattern(self) -> str:
        return self._engine.pattern

    def logits(self, data) -> numpy.ndarray:
        """(n, 256) of float32: row i scores the values of byte i, given the bytes before it. At most ``context`` bytes."""
        return self._engine.logits(bytes_of(data))

    def next_logits(self, data=b"") -> numpy.ndarray:
        """(256) of float32: the scores of the byte after these; fewer than ``context`` bytes."""
        return self._engine.next_logits(bytes_of(data))

    def eval(self, data=None, *, split: str = "validation", min_context: int = 0, max_bytes: int | None = None) -> float:
        """Bits per byte of ``data``, or without it of a part of the run's own data: train, validation or test.

        Beyond the first window a byte has seen ``min_context`` bytes or more.
        """
        if data is None:
            return self._engine.bits_per_byte_of(split, min_context, max_bytes or 0)
        array = bytes_of(data)
        return self._engine.bits_per_byte(array if max_bytes is None else array[:max_bytes], min_context)

    def entropies(self, data, *, min_context: int = 0) -> Entropies:
        """The bits of each byte, and the entropy of the distribution that was predicted for it."""
        return Entropies(*self._engine.entropies(bytes_of(data), min_context))

    def sample(
        self,
        beginning=b"",
        *,
        count: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        hop: float = 0.5,
    ) -> Iterator[bytes]:
        """Yields the bytes after ``beginning`` one by one, as they are drawn: ``b"".join(model.sample(count=100))``.

        ``count`` 0 is as many as the context has left. ``temperature`` 0 is always the likeliest byte; ``top_k`` and
        ``top_p`` leave only the likeliest; the same ``seed`` gives the same bytes; ``hop`` is the part of the context by
        which the window moves on when it is full.
        """
        if seed < 0:
            raise Error(f"seed = {seed}, must not be negative")
        generation = self._engine.generate(bytes_of(beginning, "beginning"), count, temperature, top_k, top_p, seed, hop)

        def drawn():
            while (byte := generation.next()) is not None:
                yield bytes((byte,))

        return drawn()

    def compress(self, data, *, portable: bool = False) -> bytes:
        """What `longstride compress` writes. Only the same model, on a device that computes the same bits, decompresses it.

        With ``portable`` the probabilities come from integer arithmetic, so that every CPU decompresses it; the model must
        then have device="cpu" and not int8, to compress as well as to decompress.
        """
        return self._engine.compress(bytes_of(data), portable)

    def decompress(self, data) -> bytes:
        return self._engine.decompress(bytes_of(data))

    def __repr__(self) -> str:
        return f"<longstride.Model of {self.run or 'memory'}: {self.parameters} parameters, context {self.context}, step {self.step}>"
