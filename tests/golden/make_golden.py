#!/usr/bin/env python3
"""Writes the golden files of the model tests: tiny Sparse Transformers in plain PyTorch, double precision.

Everything here is written from the paper (Child et al. 2019, sections 4.2, 5.2 and 5.3), rotary positions from Su et al. 2021
and normalised queries and keys from Henry et al. 2020 with Zhang and Sennrich 2019, with explicit masks and autograd;
it shares no code with longstride. Each file holds, for one model,

  __metadata__.model     the model's configuration as TOML
  tokens                 (B, N) u8
  losses                 (B, N) f64, nats of each token given the ones before it
  weights.<name>         f32, drawn so that every parameter matters (the output matrix is not zero)
  gradients.<name>       f32, of the mean loss

Usage: make_golden.py [FOLDER]   (needs torch and safetensors)
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file

VOCABULARY = 256
torch.set_default_dtype(torch.float64)


def fixed(l, c):
    """A1: keys of the query's own block; A2: the last c positions of every block."""
    return lambda i, j: i // l == j // l or j % l >= l - c


def window(l):
    return lambda i, j: i - j < l


def stride(l):
    return lambda i, j: (i - j) % l == 0


MODELS = {
    "fixed_merged": dict(
        config=dict(context=21, layers=2, heads=2, width=8, qk_width=0, feed_forward=0, pattern="fixed:8,2",
                    position_axes=[3, 8], positions="paper"),
        sees=lambda layer, head: fixed(8, 2),
        seed=1),
    "strided_interleaved": dict(
        config=dict(context=20, layers=3, heads=2, width=8, qk_width=4, feed_forward=16, pattern="window:5,stride:5",
                    position_axes=[2, 5, 2], positions="released"),
        sees=lambda layer, head: window(5) if layer % 2 == 0 else stride(5),
        seed=2),
    "per_head": dict(
        config=dict(context=18, layers=2, heads=4, width=8, qk_width=0, feed_forward=16, pattern="window:4|stride:4",
                    position_axes=[5, 4], positions="paper"),
        sees=lambda layer, head: window(4) if head < 2 else stride(4),
        seed=3),
    "rotary_normalised": dict(
        config=dict(context=20, layers=2, heads=2, width=8, qk_width=12, feed_forward=16, pattern="fixed:8,2",
                    positions="rotary", qk_norm=True),
        sees=lambda layer, head: fixed(8, 2),
        seed=4),
    "rotary_grid": dict(
        config=dict(context=20, layers=2, heads=2, width=8, qk_width=12, feed_forward=16, pattern="window:5,stride:5",
                    position_axes=[4, 5], positions="rotary"),
        sees=lambda layer, head: window(5) if layer % 2 == 0 else stride(5),
        seed=5),
    "mixed_values": dict(
        config=dict(context=20, layers=3, heads=2, width=8, qk_width=12, feed_forward=16, pattern="window:5,stride:5",
                    positions="rotary", qk_norm=True, value_residual=0.4),
        sees=lambda layer, head: window(5) if layer % 2 == 0 else stride(5),
        seed=6),
    "convolved": dict(
        config=dict(context=20, layers=3, heads=2, width=8, qk_width=12, feed_forward=16, pattern="window:5,stride:5",
                    positions="rotary", qk_norm=True, value_residual=0.4, convolution=4),
        sees=lambda layer, head: window(5) if layer % 2 == 0 else stride(5),
        seed=7),
}


def mask_of(sees, n):
    return torch.tensor([[j <= i and sees(i, j) for j in range(n)] for i in range(n)])


def make_weights(c, generator):
    """A dictionary of leaf tensors, exact in float32."""
    d, ff, qk = c["width"], c["feed_forward"] or 4 * c["width"], c["qk_width"] or c["width"]
    weights = {}

    def draw(name, shape, scale, mean=0.0):
        values = mean + scale * torch.randn(shape, generator=generator)
        weights[name] = values.float().double().requires_grad_()

    def norm(name):
        draw(name + ".gain", [d], 0.2, 1.0)
        draw(name + ".bias", [d], 0.2)

    def linear(name, out, fan_in):
        draw(name + ".weight", [out, fan_in], fan_in ** -0.5)
        draw(name + ".bias", [out], 0.2)

    draw("embedding.token", [VOCABULARY, d], 0.7)
    draw("embedding.start", [d], 0.7)
    for axis, extent in enumerate([] if c["positions"] == "rotary" else c["position_axes"]):
        draw(f"embedding.position.{axis}", [extent, d], 0.5)
    for layer in range(c["layers"]):
        norm(f"blocks.{layer}.norm1")
        linear(f"blocks.{layer}.attention.qkv", 2 * qk + d, d)
        linear(f"blocks.{layer}.attention.projection", d, d)
        norm(f"blocks.{layer}.norm2")
        linear(f"blocks.{layer}.feed_forward.up", ff, d)
        linear(f"blocks.{layer}.feed_forward.down", d, ff)
    norm("final_norm")
    draw("output.weight", [VOCABULARY, d], d ** -0.5)
    for layer in range(c["layers"] if c.get("convolution") else 0):
        draw(f"blocks.{layer}.feed_forward.convolution", [c["convolution"], d], 0.5)
    return weights


def position_embedding(c, w):
    """(N, d): the sum over axes of the row of each position's coordinate, the last axis varying fastest."""
    rows = []
    for i in range(c["context"]):
        total, rest = 0, i
        for axis in reversed(range(len(c["position_axes"]))):
            extent = c["position_axes"][axis]
            total = total + w[f"embedding.position.{axis}"][rest % extent]
            rest //= extent
        rows.append(total)
    return torch.stack(rows)


def embed(c, w, tokens):
    start = w["embedding.start"].expand(tokens.shape[0], 1, -1)
    tokens = w["embedding.token"][tokens]
    if c["positions"] == "rotary":
        return torch.cat([start, tokens[:, :-1]], dim=1)
    positions = position_embedding(c, w)
    if c["positions"] == "released":  # a position joins its own token, then everything moves one slot to the right
        return torch.cat([start, (tokens + positions)[:, :-1]], dim=1)
    return torch.cat([start, tokens[:, :-1]], dim=1) + positions


def layer_norm(x, w, name, epsilon):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon) * w[name + ".gain"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def angles(c, pairs):
    """(N, pairs): by what each pair turns at each position. Pairs are dealt to the axes in turn."""
    axes = c.get("position_axes", [c["context"]])
    columns = []
    for pair in range(pairs):
        axis = pair % len(axes)
        faster = 1  # positions from one coordinate of this axis to the next
        for extent in axes[axis + 1:]:
            faster *= extent
        coordinate = torch.arange(c["context"]) // faster % axes[axis]
        base = max(10000, axes[axis]) if len(axes) == 1 else axes[axis]
        of_axis = len(range(axis, pairs, len(axes)))
        columns.append(coordinate.double() * float(base) ** (-(pair // len(axes)) / of_axis))
    return torch.stack(columns, dim=-1)


def changed(c, x):
    """A head's queries or keys (B, N, D), normalised and turned as the model has it."""
    if c.get("qk_norm"):
        x = x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + 1e-6)
    if c["positions"] == "rotary":
        a, b = x.chunk(2, dim=-1)
        turn = angles(c, a.shape[-1])
        x = torch.cat([a * turn.cos() - b * turn.sin(), b * turn.cos() + a * turn.sin()], dim=-1)
    return x


def projected(c, qkv):
    qk = c["qk_width"] or c["width"]
    return qkv.split([qk, qk, c["width"]], dim=-1)


def attention(c, q, k, v, masks):
    heads, qk = c["heads"], q.shape[-1]
    results = []
    for head in range(heads):
        def part(x):
            size = x.shape[-1] // heads
            return x[..., head * size:(head + 1) * size]
        scores = changed(c, part(q)) @ changed(c, part(k)).transpose(-1, -2) / (qk // heads) ** 0.5
        scores = scores.masked_fill(~masks[head], float("-inf"))
        results.append(torch.softmax(scores, dim=-1) @ part(v))
    return torch.cat(results, dim=-1)


def convolved(c, w, x, block):
    """x, and what each position and those before it have of it by a weight for each channel and distance."""
    if not c.get("convolution"):
        return x
    taps = w[block + "feed_forward.convolution"]
    kernel = taps.flip(0).T[:, None]  # (d, 1, taps), the newest position last
    padded = torch.nn.functional.pad(x.transpose(-1, -2), (len(taps) - 1, 0))
    return x + torch.nn.functional.conv1d(padded, kernel, groups=x.shape[-1]).transpose(-1, -2)


def losses_of(model, w, tokens):
    c = model["config"]
    h = embed(c, w, tokens)
    share = c.get("value_residual", 0)
    for layer in range(c["layers"]):
        block = f"blocks.{layer}."
        masks = [mask_of(model["sees"](layer, head), c["context"]) for head in range(c["heads"])]
        q, k, v = projected(c, linear(layer_norm(h, w, block + "norm1", 1e-5), w, block + "attention.qkv"))
        if layer == 0:
            first = v
        else:
            v = (1 - share) * v + share * first
        h = h + linear(attention(c, q, k, v, masks), w, block + "attention.projection")
        normed = convolved(c, w, layer_norm(h, w, block + "norm2", 1e-5), block)
        up = linear(normed, w, block + "feed_forward.up")
        h = h + linear(up * torch.sigmoid(1.702 * up), w, block + "feed_forward.down")
    logits = layer_norm(h, w, "final_norm", 1e-6) @ w["output.weight"].T
    return -torch.log_softmax(logits, dim=-1).gather(-1, tokens[..., None])[..., 0]


def as_toml(config):
    def written(value):
        return f'"{value}"' if isinstance(value, str) else str(value).lower()
    return "".join(f"{key} = {written(value)}\n" for key, value in config.items())


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for name, model in MODELS.items():
        generator = torch.Generator().manual_seed(model["seed"])
        weights = make_weights(model["config"], generator)
        tokens = torch.randint(VOCABULARY, (2, model["config"]["context"]), generator=generator)
        losses = losses_of(model, weights, tokens)
        losses.mean().backward()
        tensors = {"tokens": tokens.to(torch.uint8), "losses": losses.detach()}
        for key, value in weights.items():
            tensors["weights." + key] = value.detach().float()
            tensors["gradients." + key] = value.grad.float()
        path = folder / f"{name}.safetensors"
        save_file(tensors, path, metadata={"model": as_toml(model["config"])})
        print(f"{path}: mean loss {losses.mean().item():.6f}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
