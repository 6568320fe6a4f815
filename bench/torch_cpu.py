#!/usr/bin/env python3
"""What PyTorch needs on the CPU for what bench_cpu_speed times. PyTorch is no dependency of longstride: run this
with a Python that has it.

    torch_cpu.py [--threads N] [--repeats N] [--part attention|step] [--dtype f32|bf16] [--json FILE]

attention  forward and backward at B 1, H 8, N 12288, D 64: dense causal attention, and fixed:128,32 put together
           from PyTorch's parts. A query sees its own block of 128 causally and the last 32 positions of each
           earlier block; the two parts are merged by their log-sum-exp. The backward of each part is PyTorch's
           own, given the merged result and log-sum-exp, which makes the gradients exact without
           differentiating the merge. Variants differ in the pieces in which queries meet summaries, and in
           whether PyTorch's fused attention or plain products do it (in bf16 these round scores to bf16, which
           fused attention and longstride do not); all are timed, the best is the peer.
           (FlexAttention has no backward on the CPU in PyTorch 2.15.)
step       a training step of bench_cpu_speed's model: 12 layers, width 512, 8 heads, N 4096, batch 1, with
           the best assembly or dense attention under a mask, whichever is faster, eager and compiled.

Results are compared with masked dense attention in double precision before anything is timed. Times are medians
in ms.
"""

import argparse
import functools
import json
import math
import statistics
import time
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F

BLOCK, SUMMARY = 128, 32
HEADS, WIDTH = 8, 64
SCALE = 1 / math.sqrt(WIDTH)
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


# ---- one part of the keys: result and log-sum-exp, and the gradients given those of the whole ----

def fused_forward(q, k, v, causal, mask):
    return flash(q, k, v, 0.0, causal, attn_mask=mask, scale=SCALE)


def fused_backward(d_o, q, k, v, o, lse, causal, mask):
    return flash_backward(d_o, q, k, v, o, lse, 0.0, causal, attn_mask=mask, scale=SCALE)


def plain_forward(q, k, v, causal, mask):
    scores = torch.matmul(q * SCALE, k.transpose(-1, -2))
    if mask is not None:
        scores += mask
    highest = scores.amax(-1)
    weights = scores.softmax(-1)
    lse = highest.float() - weights.amax(-1).float().log()
    return torch.matmul(weights, v), lse


def plain_backward(d_o, q, k, v, o, lse, causal, mask):
    scores = torch.matmul(q * SCALE, k.transpose(-1, -2))
    if mask is not None:
        scores += mask
    weights = scores.sub_(lse.unsqueeze(-1).to(q.dtype)).exp_()
    dv = torch.matmul(weights.transpose(-1, -2), d_o)
    delta = (d_o.float() * o.float()).sum(-1, keepdim=True).to(q.dtype)
    d_scores = torch.matmul(d_o, v.transpose(-1, -2)).sub_(delta).mul_(weights).mul_(SCALE)
    return torch.matmul(d_scores, k), torch.matmul(d_scores.transpose(-1, -2), q), dv


def by_block(x):
    """(1, N, H, D) -> (blocks, H, 128, D), a view."""
    _, n, heads, width = x.shape
    return x.view(n // BLOCK, BLOCK, heads, width).transpose(1, 2)


class Piece(NamedTuple):
    """Query blocks [first, last) of each run of `span` blocks, and the summaries of the run's first `keys` blocks."""
    span: int
    first: int
    last: int
    keys: int
    masked: bool  # query block i sees the summaries of blocks below i only, else of all

    def rows(self, x):
        """(1, N, H, D) -> (runs, H, queries, D), a view."""
        _, _, heads, width = x.shape
        return x.view(-1, self.span, BLOCK, heads, width)[:, self.first:self.last].flatten(1, 2).transpose(1, 2)

    def rows_of_lse(self, lse):
        """(1, H, N) -> (runs, H, queries), a view."""
        runs = lse.view(lse.shape[1], -1, self.span, BLOCK)[:, :, self.first:self.last]
        return runs.flatten(2, 3).transpose(0, 1)

    def summaries(self, x):
        """(blocks, 32, H, D) -> (runs, H, keys, D), a view."""
        _, _, heads, width = x.shape
        return x.view(-1, self.span, SUMMARY, heads, width)[:, :self.keys].flatten(1, 2).transpose(1, 2)

    def mask(self, dtype):
        return piece_mask(self, dtype) if self.masked else None


@functools.lru_cache(maxsize=None)
def piece_mask(piece, dtype):
    query = torch.arange(piece.first, piece.last).repeat_interleave(BLOCK)[:, None]
    seen = torch.arange(piece.keys).repeat_interleave(SUMMARY)[None, :] < query
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -math.inf)[None, None]


@functools.lru_cache(maxsize=None)
def cut_by_groups(blocks, group):
    """`group` query blocks at a time meet all summaries before them."""
    ends = [(first, min(blocks, first + group)) for first in range(1, blocks, group)]
    return [Piece(blocks, first, last, last - 1, last > first + 1) for first, last in ends]


@functools.lru_cache(maxsize=None)
def cut_by_halves(blocks, leaf, step):
    """The later half meets the earlier one's summaries, `step` query blocks at a time over all runs together, then
    the same within each half: no mask but in runs of at most `leaf` blocks, or of a number that has no halves."""
    pieces, span = [], blocks
    while span % 2 == 0 and span > leaf:
        at_once = max(1, step * span // blocks)
        pieces += [Piece(span, first, min(span, first + at_once), span // 2, False)
                   for first in range(span // 2, span, at_once)]
        span //= 2
    if span > 1:
        pieces.append(Piece(span, 1, span, span - 1, span > 2))
    return pieces


def summaries_of(x):
    """(1, N, H, D) -> (blocks, 32, H, D): the last positions of every block, a view."""
    _, n, heads, width = x.shape
    return x.view(n // BLOCK, BLOCK, heads, width)[:, -SUMMARY:]


@functools.lru_cache(maxsize=None)
def causal_mask(dtype):
    return torch.full((BLOCK, BLOCK), -math.inf, dtype=dtype).triu_(1)


class Variant(NamedTuple):
    """How the pattern is put together."""
    cut: Callable  # number of blocks -> the pieces in which queries meet summaries
    fused: bool  # PyTorch's fused attention for those, or plain products
    own_fused: bool = True  # likewise for the backward of the own blocks; their forward is always fused


class FixedAttention(torch.autograd.Function):
    """q, k, v (1, N, H, D) -> (1, N, H, D)."""

    @staticmethod
    def forward(ctx, q, k, v, how):
        part = fused_forward if how.fused else plain_forward
        own, own_lse = fused_forward(by_block(q), by_block(k), by_block(v), True, None)
        o = own.transpose(1, 2).reshape(q.shape)  # (1, N, H, D)
        lse = own_lse.transpose(0, 1).reshape(1, q.shape[2], -1)  # (1, H, N)
        ks, vs = summaries_of(k).contiguous(), summaries_of(v).contiguous()
        for piece in how.cut(q.shape[1] // BLOCK):
            far, far_lse = part(piece.rows(q), piece.summaries(ks), piece.summaries(vs), False, piece.mask(q.dtype))
            near, near_lse = piece.rows(o), piece.rows_of_lse(lse)
            # near + (far - near) * share of far
            near.lerp_(far, torch.sigmoid(far_lse - near_lse).unsqueeze(-1).to(o.dtype))
            near_lse.copy_(torch.logaddexp(near_lse, far_lse))
        ctx.save_for_backward(q, k, v, o, lse, ks, vs)
        ctx.how = how
        return o

    @staticmethod
    def backward(ctx, d_o):
        q, k, v, o, lse, ks, vs = ctx.saved_tensors
        d_o = d_o.contiguous()
        part = fused_backward if ctx.how.fused else plain_backward
        lse_by_block = lse.view(q.shape[2], -1, BLOCK).transpose(0, 1)
        own = fused_backward if ctx.how.own_fused else plain_backward
        gradients = own(by_block(d_o), by_block(q), by_block(k), by_block(v), by_block(o), lse_by_block, True,
                        None if ctx.how.own_fused else causal_mask(q.dtype))
        dq, dk, dv = (g.transpose(1, 2).reshape(q.shape) for g in gradients)
        dks, dvs = torch.zeros(ks.shape), torch.zeros(vs.shape)
        for piece in ctx.how.cut(q.shape[1] // BLOCK):
            far_dq, far_dk, far_dv = part(piece.rows(d_o), piece.rows(q), piece.summaries(ks), piece.summaries(vs),
                                          piece.rows(o), piece.rows_of_lse(lse), False, piece.mask(q.dtype))
            piece.rows(dq).add_(far_dq)
            piece.summaries(dks).add_(far_dk)
            piece.summaries(dvs).add_(far_dv)
        summaries_of(dk).add_(dks)
        summaries_of(dv).add_(dvs)
        return dq, dk, dv, None


def allowed_pairs(n):
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    summary = (j % BLOCK >= BLOCK - SUMMARY) & (j // BLOCK < i // BLOCK)
    return (j <= i) & ((i // BLOCK == j // BLOCK) | summary)


_dense_mask = {}


def dense_masked(q, k, v):
    n = q.shape[1]
    if (n, q.dtype) not in _dense_mask:
        allowed = allowed_pairs(n)
        _dense_mask[n, q.dtype] = torch.zeros(n, n, dtype=q.dtype).masked_fill_(~allowed, -math.inf)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                          attn_mask=_dense_mask[n, q.dtype]).transpose(1, 2)


def dense_causal(q, k, v):
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                          is_causal=True).transpose(1, 2)


VARIANTS = {f"fused, groups of {group}": Variant(functools.partial(cut_by_groups, group=group), True)
            for group in (1, 4, 8)}
for leaf, step in ((1, 96), (1, 16), (12, 96), (12, 16)):
    cut = functools.partial(cut_by_halves, leaf=leaf, step=step)
    name = f"halves to {leaf}, {step} at once"
    VARIANTS[f"fused, {name}"] = Variant(cut, True)
    VARIANTS[f"plain, {name}"] = Variant(cut, False)
    VARIANTS[f"plain, own too, {name}"] = Variant(cut, False, False)


def assembly(name):
    @torch.compiler.disable  # its parts are whole kernels already; tracing would make the masks anew in every call
    def attend(q, k, v):
        return FixedAttention.apply(q, k, v, VARIANTS[name])
    return attend


# ---- measuring ----

def problem(n, dtype):
    generator = torch.Generator().manual_seed(7)
    qkv = torch.rand(1, n, 3 * HEADS * WIDTH, generator=generator).mul_(2).sub_(1).to(dtype).requires_grad_()
    d_o = torch.rand(1, n, HEADS, WIDTH, generator=generator).mul_(2).sub_(1).to(dtype)
    return qkv, d_o


def split_heads(qkv):
    return (x.view(1, -1, HEADS, WIDTH) for x in qkv.chunk(3, dim=-1))


def check(variant, dtype):
    n = 6 * BLOCK
    qkv, d_o = problem(n, dtype)
    o = assembly(variant)(*split_heads(qkv))
    o.backward(d_o)
    truth_qkv = qkv.detach().double().requires_grad_()
    q, k, v = (x.transpose(1, 2) for x in split_heads(truth_qkv))
    scores = (q @ k.transpose(-1, -2) * SCALE).masked_fill(~allowed_pairs(n), -math.inf)
    truth = (scores.softmax(-1) @ v).transpose(1, 2)
    truth.backward(d_o.double())
    for name, ours, true in (("o", o, truth), ("gradients", qkv.grad, truth_qkv.grad)):
        error, largest = (ours.double() - true).abs().max().item(), true.abs().max().item()
        allowed = 1e-5 if dtype == torch.float32 else 0.03
        if not error < allowed * largest:
            raise SystemExit(f"torch_cpu: {name} of '{variant}' in {dtype} is wrong by {error}, its largest "
                             f"value is {largest}: nothing was timed")


def time_attention(attend, n, dtype, repeats):
    """Medians of forward, backward and their sum, in ms."""
    qkv, d_o = problem(n, dtype)
    times = []
    for repeat in range(repeats + 1):
        qkv.grad = None
        start = time.perf_counter()
        o = attend(*split_heads(qkv))
        middle = time.perf_counter()
        o.backward(d_o)
        end = time.perf_counter()
        if repeat > 0:
            times.append((middle - start, end - middle, end - start))
    return [statistics.median(column) * 1e3 for column in zip(*times)]


def best_assembly(n, dtype, repeats, rows=None):
    """Times every variant; name and times of the fastest."""
    best = None
    for variant in VARIANTS:
        check(variant, dtype)
        times = time_attention(assembly(variant), n, dtype, repeats)
        if rows is not None:
            report_attention(rows, f"fixed:128,32 {variant}", n, dtype, times)
        if best is None or times[2] < best[1][2]:
            best = variant, times
    return best


def name_of(dtype):
    return "f32" if dtype == torch.float32 else "bf16"


def report_attention(rows, name, n, dtype, times):
    forward, backward, both = times
    print(f"{name:<44}{name_of(dtype):>6}{n:>7}{forward:>11.2f}{backward:>11.2f}{both:>11.2f}", flush=True)
    rows.append({"attention": name, "dtype": name_of(dtype), "n": n, "forward_ms": forward, "backward_ms": backward,
                 "forward_backward_ms": both})


def attention_part(dtypes, repeats):
    rows = []
    print(f"{'attention':<44}{'dtype':>6}{'n':>7}{'forward ms':>11}{'backward':>11}{'both':>11}")
    for dtype in dtypes:
        report_attention(rows, "dense causal", 12288, dtype, time_attention(dense_causal, 12288, dtype, repeats))
        variant, times = best_assembly(12288, dtype, repeats, rows)
        report_attention(rows, "fixed:128,32 best", 12288, dtype, times)
        rows[-1]["variant"] = variant
    return rows


# ---- the training step ----

class Block(torch.nn.Module):
    def __init__(self, width, attend):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.projection = torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.attend = attend

    def forward(self, x):
        q, k, v = split_heads(self.qkv(self.norm1(x)))
        x = x + self.projection(self.attend(q, k, v).reshape(x.shape))
        up = self.up(self.norm2(x))
        return x + self.down(up * torch.sigmoid(1.702 * up))


class Model(torch.nn.Module):
    def __init__(self, attend, n=4096, layers=12, width=HEADS * WIDTH):
        super().__init__()
        self.token = torch.nn.Embedding(256, width)
        self.row, self.column = torch.nn.Embedding(n // BLOCK, width), torch.nn.Embedding(BLOCK, width)
        self.blocks = torch.nn.ModuleList(Block(width, attend) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(width)
        self.output = torch.nn.Linear(width, 256, bias=False)
        for table in (self.token, self.row, self.column, self.output):
            torch.nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens):
        """The mean loss of each token given the ones before it, in nats."""
        previous = F.pad(tokens[:, :-1], (1, 0))
        position = torch.arange(tokens.shape[1])
        x = self.token(previous) + self.row(position // BLOCK) + self.column(position % BLOCK)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.output(self.norm(x)).float().view(-1, 256), tokens.view(-1))


def time_step(attend, dtype, repeats, compiled):
    torch.manual_seed(1)
    model = Model(attend)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
    tokens = torch.randint(256, (1, 4096))
    times = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = run(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise SystemExit("torch_cpu: the loss is not finite")
        if repeat > 0:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def step_part(dtypes, repeats):
    rows = []
    print(f"{'step':<44}{'dtype':>6}{'ms':>18}{'tokens/s':>11}")
    for dtype in dtypes:
        variant, times = best_assembly(4096, dtype, repeats)
        masked = time_attention(dense_masked, 4096, dtype, repeats)
        attend, name = (assembly(variant), variant) if times[2] < masked[2] else (dense_masked, "dense masked")
        print(f"attention at n 4096: {variant} {times[2]:.2f} ms, dense masked {masked[2]:.2f} ms")
        for compiled in (False, True):
            label = f"{'compiled' if compiled else 'eager'}, {name}"
            try:
                ms = time_step(attend, dtype, repeats, compiled)
            except Exception as error:  # compilation needs a compiler and may not know an op
                print(f"{label}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            print(f"{label:<44}{name_of(dtype):>6}{ms:>18.1f}{4096e3 / ms:>11.1f}", flush=True)
            rows.append({"step": label, "dtype": name_of(dtype), "ms": ms, "tokens_per_second": 4096e3 / ms,
                         "assembly_ms": times[2], "dense_masked_ms": masked[2]})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["attention", "step"])
    parser.add_argument("--dtype", choices=["f32", "bf16"])
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtypes = [dtype for dtype in (torch.float32, torch.bfloat16) if arguments.dtype in (None, name_of(dtype))]
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads, "
          f"{arguments.repeats} repeats")
    result = {"torch": torch.__version__, "threads": arguments.threads, "repeats": arguments.repeats}
    if arguments.part in (None, "attention"):
        result["attention"] = attention_part(dtypes, arguments.repeats)
    if arguments.part in (None, "step"):
        result["step"] = step_part(dtypes, arguments.repeats)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
