"""The Sparse Transformer of longstride as a module of PyTorch.

Names and shapes of the weights are those of a run's model.safetensors, and the logits are the engine's. Everything
but the attention is plain PyTorch:

    x = embed(bytes);  for each block:  x = x + W_p attention(LN(x));  x = x + W_2 f(W_1 LN(x))
    logits = W_out LN(x)
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from . import _longstride
from ._attention import attention
from ._errors import Error, WrongType, path_of
from ._files import open_whole, read_config, read_weights, weights_file, write_weights
from ._train import _written

# The [model] section of a config, as `longstride train --help` lists it.
DEFAULTS: dict[str, Any] = {
    "context": 1024,
    "layers": 6,
    "heads": 4,
    "width": 256,
    "qk_width": 0,  # 0: width
    "feed_forward": 0,  # 0: 4 * width
    "pattern": "fixed:128,32",
    "position_axes": [],  # []: the context
    "positions": "rotary",  # or paper, released: learned, see Embedding
    "rotary_base": 0.0,  # 0: see rotation()
    "qk_norm": False,
    "value_residual": 0.0,  # part of the first block's values in those of every later one
    "convolution": 0,  # taps of a convolution before the feed-forward, 4 or 0
    "init": "paper",
}


def grid(axes: list[int], positions: int) -> torch.Tensor:
    """(positions, axes): the coordinate of each position on each axis, the last one varying fastest."""
    columns, faster = [], 1
    for extent in reversed(axes):
        columns.insert(0, torch.arange(positions) // faster % extent)
        faster *= extent
    return torch.stack(columns, 1)


def rotation(axes: list[int], positions: int, pairs: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(positions, pairs): cosine and sine of the angle by which each pair of a head's channels turns.

    Pairs are dealt to the axes in turn; those of one axis turn at frequencies from 1 down to about 1 / base.
    """
    coordinates = grid(axes, positions).double()
    angles = torch.empty(positions, pairs, dtype=torch.double)
    for pair in range(pairs):
        axis = pair % len(axes)
        of_axis = len(range(axis, pairs, len(axes)))
        ratio = base or max(10000 if len(axes) == 1 else 2, axes[axis])
        angles[:, pair] = coordinates[:, axis] * ratio ** (-(pair // len(axes)) / of_axis)
    return angles.cos().float(), angles.sin().float()


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.epsilon)


class Embedding(nn.Module):
    """Row i is of the byte before i, so that nothing sees the byte that it predicts; row 0 is a start of its own.

    Learned positions belong to the row ("paper") or to the byte ("released").
    """

    def __init__(self, width: int, axes: list[int], positions: str):
        super().__init__()
        self.token = nn.Parameter(torch.empty(256, width))
        self.start = nn.Parameter(torch.empty(width))
        self.axes, self.before_shift = axes, positions == "released"
        if positions != "rotary":
            self.position = nn.ParameterList(torch.empty(extent, width) for extent in axes)

    def forward(self, tokens):
        batch, n = tokens.shape
        x = F.embedding(tokens, self.token)
        positions = None
        if hasattr(self, "position"):
            coordinates = grid(self.axes, n).to(x.device)
            positions = sum(table[coordinates[:, axis]] for axis, table in enumerate(self.position))
        if positions is not None and self.before_shift:
            x = x + positions
        x = torch.cat([self.start.expand(batch, 1, -1), x[:, :-1]], 1)
        return x if positions is None or self.before_shift else x + positions


class Attention(nn.Module):
    def __init__(self, config: dict[str, Any], pattern: str):
        super().__init__()
        self.heads, self.pattern = config["heads"], pattern
        self.qk, self.width = config["qk_width"] or config["width"], config["width"]
        self.qk_norm, self.share = config["qk_norm"], config["value_residual"]
        self.qkv = nn.Linear(self.width, 2 * self.qk + self.width)
        self.projection = nn.Linear(self.width, self.width)

    def turned(self, x, rotation):
        """Queries or keys (batch, n, heads, width), normalised and turned as the model has it."""
        if self.qk_norm:
            x = F.rms_norm(x, x.shape[-1:], eps=1e-6)
        if rotation is not None:
            a, b = x.chunk(2, -1)
            cosine, sine = rotation
            x = torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)
        return x

    def forward(self, x, rotation, first_values):
        """What is added to the stream, and this block's values, which later blocks mix with theirs."""
        q, k, v = self.qkv(x).split([self.qk, self.qk, self.width], -1)
        q, k = (self.turned(t.unflatten(-1, (self.heads, -1)), rotation) for t in (q, k))
        if first_values is not None:
            v = (1 - self.share) * v + self.share * first_values
        o = attention(q, k, v.unflatten(-1, (self.heads, -1)), self.pattern, layout="bnhd")
        return self.projection(o.flatten(-2)), v


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, taps: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.convolution = nn.Parameter(torch.zeros(taps, width)) if taps else None

    def forward(self, x):
        if self.convolution is not None:
            taps = self.convolution.shape[0]
            kernel = self.convolution.flip(0).T[:, None]  # a row's own weight last
            before = F.pad(x.transpose(1, 2), (taps - 1, 0))
            x = x + F.conv1d(before, kernel.to(x.dtype), groups=x.shape[-1]).transpose(1, 2)
        x = self.up(x)
        return self.down(x * torch.sigmoid(1.702 * x))


class Block(nn.Module):
    def __init__(self, config: dict[str, Any], pattern: str):
        super().__init__()
        width = config["width"]
        self.norm1 = Norm(width, 1e-5)
        self.attention = Attention(config, pattern)
        self.norm2 = Norm(width, 1e-5)
        self.feed_forward = FeedForward(width, config["feed_forward"] or 4 * width, config["convolution"])

    def forward(self, x, rotation, first_values):
        seen, values = self.attention(self.norm1(x), rotation, first_values)
        x = x + seen
        return x + self.feed_forward(self.norm2(x)), values


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """With all fields. Raises Error for values that do not go together."""
    for name in config.keys() - DEFAULTS.keys():
        raise Error(f"{name}: no such field of a model; known are {', '.join(DEFAULTS)}")
    c = {**DEFAULTS, **config}
    for name in ("context", "layers", "heads", "width"):
        if c[name] < 1:
            raise Error(f"{name} = {c[name]}, must be at least 1")
    for name, width in (("width", c["width"]), ("qk_width", c["qk_width"] or c["width"])):
        if width % c["heads"]:
            raise Error(f"heads = {c['heads']} does not divide {name} = {width}")
    if c["positions"] not in ("paper", "released", "rotary"):
        raise Error(f"positions {c['positions']!r}: they are paper, released or rotary")
    if c["positions"] == "rotary" and (c["qk_width"] or c["width"]) // c["heads"] % 2:
        raise Error("rotary positions turn pairs of channels; make qk_width / heads even")
    if c["convolution"] not in (0, 4):
        raise Error(f"convolution = {c['convolution']}, must be 4 or 0")
    if not 0 <= c["value_residual"] < 1:
        raise Error(f"value_residual = {c['value_residual']}, must be from 0 to below 1")
    covered = math.prod(c["position_axes"]) if c["position_axes"] else c["context"]
    if covered < c["context"]:
        raise Error(f"position_axes {c['position_axes']} cover {covered} positions, but the context is {c['context']}")
    return c


class SparseTransformer(nn.Module):
    """A model over bytes: ``SparseTransformer(context=256, layers=4, pattern="fixed:16,4")``.

    ``config`` has the fields of a config's [model] section. ``from_pretrained`` takes a run's model and
    ``save_pretrained`` makes a run of it that `longstride eval`, `sample` and `compress` read.
    """

    def __init__(self, **config: Any):
        super().__init__()
        self.config = c = checked(config)
        self.step = 0
        self._sections: dict[str, dict[str, Any]] = {}  # of the config besides [model]
        patterns = _longstride.pattern_layers(c["pattern"])
        axes = c["position_axes"] or [c["context"]]
        if c["positions"] != "rotary":
            c["position_axes"] = axes  # where they are not written, the engine has others
        self.embedding = Embedding(c["width"], axes, c["positions"])
        self.blocks = nn.ModuleList(Block(c, patterns[layer % len(patterns)]) for layer in range(c["layers"]))
        self.final_norm = Norm(c["width"], 1e-6)
        self.output = nn.Linear(c["width"], 256, bias=False)
        if c["positions"] == "rotary":
            pairs = (c["qk_width"] or c["width"]) // c["heads"] // 2
            cosine, sine = rotation(list(axes), c["context"], pairs, c["rotary_base"])
            self.register_buffer("cosine", cosine[:, None], persistent=False)  # the same for every head
            self.register_buffer("sine", sine[:, None], persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draws new weights as the engine does, from the random numbers of PyTorch."""
        paper = self.config["init"] == "paper"

        def draw(weight, fan_in, scale=1.0):
            weight.normal_(0, scale * (0.125 / math.sqrt(fan_in) if paper else math.sqrt(0.125 / fan_in)))

        width = self.config["width"]
        draw(self.embedding.token, width)
        draw(self.embedding.start, width)
        for table in getattr(self.embedding, "position", []):
            draw(table, width * len(self.embedding.axes))
        residual = 1 / math.sqrt(2 * len(self.blocks))
        for block in self.blocks:
            for linear, scale in (
                (block.attention.qkv, 1.0),
                (block.attention.projection, residual),
                (block.feed_forward.up, 1.0),
                (block.feed_forward.down, residual),
            ):
                draw(linear.weight, linear.in_features, scale)
                linear.bias.zero_()
        self.output.weight.zero_()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, n, 256): row i scores byte i, given the bytes before it. tokens (batch, n) of uint8 or int64."""
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise WrongType(f"tokens are {tokens.dtype} with {tokens.ndim} axes, must be whole numbers (batch, n)")
        n = tokens.shape[1]
        if n > self.config["context"]:
            raise Error(f"{n} bytes, but the context is {self.config['context']}")
        rotation = (self.cosine[:n], self.sine[:n]) if self.config["positions"] == "rotary" else None
        mixes = self.config["value_residual"] > 0
        x, first_values = self.embedding(tokens.long()), None
        for block in self.blocks:
            x, values = block(x, rotation, first_values)
            if mixes and first_values is None:
                first_values = values
        return self.output(self.final_norm(x))

    @classmethod
    def from_pretrained(cls, run: str | os.PathLike[str]) -> SparseTransformer:
        """The model of a run, on the CPU."""
        run = path_of(run)
        sections = read_config(os.path.join(run, "config.toml"))
        weights, metadata = read_weights(weights_file(run))
        config = {"positions": "paper", **sections.pop("model", {})}
        written_axes = config.get("position_axes", [])
        # Learned positions that the config leaves open show in their tables.
        tables = [name for name in weights if name.startswith("embedding.position.")]
        if tables:
            config["position_axes"] = [len(weights[f"embedding.position.{axis}"]) for axis in range(len(tables))]
        model = cls(**config)
        model._sections, model.step = sections, int(metadata.get("step", 0))
        model.config["position_axes"] = written_axes
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        return model

    def save_pretrained(self, run: str | os.PathLike[str], step: int | None = None) -> None:
        """Writes a run: config.toml and model.safetensors, in a new directory or over a run that this wrote."""
        run = path_of(run)
        os.makedirs(run, exist_ok=True)
        others = sorted(set(os.listdir(run)) - {"config.toml", "model.safetensors"})
        if others:
            raise Error(f"{run} holds {others[0]}: save to a new directory, a run that was trained has its own weights")
        if not all(parameter.isfinite().all() for parameter in self.parameters()):
            raise Error("a weight is not finite: training diverged")
        text = ""
        for section, fields in {"model": self.config, **self._sections}.items():
            text += f"[{section}]\n" + "".join(f"{key} = {_written(value)}\n" for key, value in fields.items()) + "\n"
        # The engine keeps the convolutions last of all.
        weights = dict(sorted(self.state_dict().items(), key=lambda item: item[0].endswith(".convolution")))
        arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
        metadata = {"format": "pt", "step": str(self.step if step is None else step)}
        write_weights(os.path.join(run, "model.safetensors"), arrays, metadata)
        with open_whole(os.path.join(run, "config.toml")) as file:
            file.write(text.encode())
