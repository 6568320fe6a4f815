"""Gated DeltaNet (arXiv 2412.06464) and Mamba-2 (arXiv 2405.21060) of flash-linear-attention, for bench/torch_learning.py: what stands in a block in the
place of attention. Embeddings, norms, residuals, the feed-forward and the recipe are those of the transformer beside them.

Muon takes the matrices of the projections. Mamba's projection in is one matrix there; here it is five, one below the other, so that Muon takes the gate's, the
values', B's and C's each for itself, as it takes queries' and keys' in Gated DeltaNet. Everything else goes to AdamW: the few rows that make time steps, gates
and beta (a row a head), the kernels of convolutions, norms, biases, and without weight decay A_log, dt_bias and D.

The layers' own Triton kernels are launched as they are. torch.compile takes what lies between.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def layer_class(module, name, model):
    try:
        return getattr(__import__("fla.layers." + module, fromlist=[name]), name)
    except ImportError as missing:
        raise SystemExit(f"--model {model} needs flash-linear-attention (pip install flash-linear-attention): {missing}") from None


def matrix(weight, scale=1.0):
    nn.init.normal_(weight, std=math.sqrt(0.125 / weight.shape[1]) * scale)


class Joined(nn.Module):
    """A linear map without a bias whose matrix is several, one below the other."""

    def __init__(self, columns, rows):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(torch.empty(count, columns)) for count in rows)
        for part in self.parts:
            matrix(part)

    @property
    def weight(self):  # the layer asks where it is
        return self.parts[0]

    def forward(self, x):
        return F.linear(x, torch.cat(list(self.parts)))


class GatedDelta(nn.Module):
    """`heads` states of keys of `head_dim` and values of `head_dim * expand`; no positions but those that the recurrence makes."""

    def __init__(self, a, out):
        super().__init__()
        layer = layer_class("gated_deltanet", "GatedDeltaNet", a.model)
        self.layer = layer(hidden_size=a.width, expand_v=a.expand or 1, head_dim=a.head_dim or a.width // a.heads, num_heads=a.heads, mode="chunk")
        for name in ("q_proj", "k_proj", "v_proj", "g_proj", "a_proj", "b_proj"):
            matrix(getattr(self.layer, name).weight)
        matrix(self.layer.o_proj.weight, out)

    def forward(self, x):
        return self.layer(x)[0]


class Mamba(nn.Module):
    """Heads of `head_dim`, as many as `width * expand` has, each with a state of `state`. The scan is that of mamba-ssm, as in the layer, or fla's simple_gla:
    y_t = sum over s <= t of exp(g_s+1 + ... + g_t) (C_t B_s) dt_s u_s + D u_t with g = -exp(A_log) dt."""

    def __init__(self, a, out):
        super().__init__()
        layer = layer_class("mamba2", "Mamba2", a.model)
        self.fla_scan = None
        if a.scan == "simple-gla":
            from fla.ops.simple_gla import chunk_simple_gla

            self.fla_scan = chunk_simple_gla
        self.layer = one = layer(hidden_size=a.width, head_dim=a.head_dim or 64, state_size=a.state, expand=a.expand or 2, backend="triton")
        if not self.fla_scan and __import__("fla.layers.mamba2", fromlist=["x"]).mamba_chunk_scan_combined is None:
            raise SystemExit("--scan mamba-ssm needs mamba-ssm (pip install mamba-ssm); --scan simple-gla does not")
        self.inner, self.state, self.head = one.intermediate_size, a.state, one.head_dim
        one.in_proj = Joined(a.width, [self.inner, self.inner, a.state, a.state, one.num_heads])
        matrix(one.out_proj.weight, out)
        self.train(False)

    def train(self, mode=True):
        # There is no dropout. In training mode the layer wants causal-conv1d for one fused kernel; else it takes a Triton convolution and the same scan.
        return super().train(False)

    def forward(self, x):
        one = self.layer
        if not self.fla_scan:
            return one(x)[0]
        rows, n, _ = x.shape
        gate, mixed, dt = one.in_proj(x).split([self.inner, self.inner + 2 * self.state, one.num_heads], -1)
        mixed = one.causal_conv1d_fn(x=mixed, weight=one.conv1d.weight.squeeze(1), bias=one.conv1d.bias, activation="silu")[0]
        u, b, c = mixed.split([self.inner, self.state, self.state], -1)
        u = u.view(rows, n, one.num_heads, self.head)
        keys, queries, values, g = scanned(u, b, c, dt, one.dt_bias, one.A_log)
        y, _ = self.fla_scan(q=queries, k=keys, v=values, g=g, scale=1.0)
        return one.out_proj(one.norm(with_input(y, u, one.D), gate))


@torch.compile(dynamic=False)
def scanned(u, b, c, dt, bias, log_decay):
    dt = F.softplus(dt.float() + bias)
    keys, queries = (t[:, :, None].expand(-1, -1, dt.shape[-1], -1).contiguous() for t in (b, c))
    return keys, queries, (u * dt[..., None]).to(u.dtype), -log_decay.float().exp() * dt


@torch.compile(dynamic=False)
def with_input(y, u, share):
    return (y + u * share[:, None]).to(u.dtype).flatten(2)


def mixer(a, out):
    return GatedDelta(a, out) if a.model == "gated-deltanet" else Mamba(a, out)
