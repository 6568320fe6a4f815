"""Patterns: which earlier positions each position may look at."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from . import _longstride
from ._errors import Error

if TYPE_CHECKING:
    import numpy


@functools.lru_cache(maxsize=64)
def planned(pattern: str, positions: int, heads: int, device: str, stream: int = 0) -> _longstride.Attention:
    """One for each stream of a GPU, since an Attention works on one at a time."""
    return _longstride.Attention(pattern, positions, heads, device)


class Reach(NamedTuple):
    """What positions see of earlier ones through several layers. Its text says it in a sentence."""

    complete: bool  # every position sees every earlier one
    layers: int  # the fewest for that; all that were asked about if it is not complete
    blind_query: int | None  # if it is not: the position that misses most, ...
    blind: tuple[int, int] | None  # ... the first and the last that it misses, ...
    blind_count: int  # ... and how many
    text: str

    def __str__(self) -> str:
        return self.text


class Pattern:
    """Which earlier positions each position may look at: ``Pattern("strided:128")``.

    Patterns of several heads are written "window:64|stride:64"; ``heads`` is then their number. A notebook shows a picture.
    """

    def __init__(self, text: str | Pattern, heads: int | None = None):
        self.text = str(text)
        self.heads = self.text.count("|") + 1 if heads is None else int(heads)
        planned(self.text, 1, self.heads, "cpu")  # what is no pattern is said here

    def allows(self, query: int, key: int, head: int = 0) -> bool:
        """May the query at this position look at the key at that one?"""
        if query < 0 or key < 0:
            raise Error(f"query {query} and key {key}: positions begin at 0")
        return planned(self.text, max(query, key) + 1, self.heads, "cpu").allows(head, query, key)

    def pairs(self, positions: int) -> int:
        """How many pairs of query and key are allowed, over all heads."""
        return planned(self.text, positions, self.heads, "cpu").pairs()

    def reach(self, positions: int, layers: int = 2) -> Reach:
        """What positions see through ``layers`` layers of this pattern, each reading what the one before wrote."""
        reach = _longstride.pattern_reach(self.text, positions, layers, self.heads)
        return Reach(
            reach.complete,
            reach.layers,
            None if reach.complete else reach.blind_query,
            None if reach.complete else (reach.blind_first, reach.blind_last),
            reach.blind_count,
            reach.text,
        )

    def draw(self, positions: int = 64, pixels: int = 480) -> Drawing:
        """A picture: a row a query, a column a key. A notebook shows it; ``draw().save("pattern.svg")`` keeps it."""
        return Drawing(_longstride.pattern_svg(self.text, positions, self.heads, pixels))

    def _repr_svg_(self) -> str:
        return self.draw().svg

    def to_dense(self, positions: int, head: int = 0) -> numpy.ndarray:
        """The pattern as a mask, (positions, positions) of bool: a row a query, a column a key."""
        import numpy

        mask = numpy.empty((positions, positions), numpy.uint8)
        planned(self.text, positions, self.heads, "cpu").fill_dense(head, mask)
        return mask.view(numpy.bool_)

    def to_block_mask(self, positions: int, device="cpu"):
        """The pattern as a BlockMask of FlexAttention."""
        from ._torch import block_mask

        return block_mask(self, positions, device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and (self.text, self.heads) == (other.text, other.heads)

    def __hash__(self) -> int:
        return hash((self.text, self.heads))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})" if self.heads == self.text.count("|") + 1 else f"Pattern({self.text!r}, heads={self.heads})"


class Drawing:
    """A picture as SVG text."""

    def __init__(self, svg: str):
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path) -> None:
        """Writes the SVG file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.svg)
