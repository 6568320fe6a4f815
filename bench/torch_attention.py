#!/usr/bin/env python3
"""The peers of the attention kernels: what a PyTorch user can put together for the same shapes, on one GPU, in bf16.

    python3 bench/torch_attention.py [--shape NAME]... [--peer TEXT]... [--seconds 90] [--total 200] [--json FILE]

Shapes carry the names of `bench_gpu_attention`, so that the two tables can be joined. Milliseconds are medians of 20
(of 7 above 5 ms): the forward as autograd records it, and the backward alone, the gradients of q, k and v from a graph
that is kept. TFLOP/s count the pairs that the pattern allows, 2 (D + Dv) a pair forward and 2 (3 D + 2 Dv) backward. q,
k and v are slices of one packed projection (B, N, 3 H D). The output, its gradient and the gradients of q, k and v are
in the natural layout (B, N, H, D): where a kernel leaves them in another, the copy counts. Packing the gradients again
does not. `error` is the largest difference from dense masked attention in f32, of the output and the three gradients,
each over its largest value, in the first and the last head; sequences longer than 16,384 are checked at that length.

The peers, all of them causal:

    cuDNN, flash                   scaled_dot_product_attention with that backend
    reshape + ...                  the own blocks as a batch of short sequences; nothing is copied
    transpose + ...                the columns as such a batch, which costs a transposed copy of each tensor
    ... copies not counted         the same, with operands already transposed and results left so
    strided views + ...            the columns as more heads, without copies: the projection is packed head by head
    ... padded                     q and k padded with zeros to the width of v
    FlexAttention                  with the pattern as its mask
    two FlexAttention calls        own block and gathered summaries, or window and columns, merged by log-sum-exp
    one call, keys appended        FlexAttention over the keys followed by the gathered summaries

--shape is a whole name, --peer a part of one. What FlexAttention needs is compiled first by processes of their own, all
at once and into the caches that PyTorch keeps on disk, for at most --seconds; a peer that is not ready by then has
failed. After --total seconds nothing more is begun. FILE is rewritten after each row.
"""
import argparse
import dataclasses
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing
import warnings

import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DEVICE = "cuda"
CACHE_BYTES, CHECK_LENGTH, TOLERANCE = 150 << 20, 16384, 0.02
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    pattern: str
    batch: int
    heads: int
    n: int
    width: int
    v_width: int

    def numbers(self):
        """The numbers of the pattern, and 0 for those it has not."""
        given = [int(number) for number in self.pattern.partition(":")[2].split(",") if number]
        return (given + [0, 0])[:2]

    def kind(self):
        return self.pattern.partition(":")[0]


SHAPES = [
    Shape("dense", "dense", 4, 8, 12288, 64, 64),
    Shape("dense 16k D64", "dense", 2, 16, 16384, 64, 64),
    Shape("dense 16k D128", "dense", 2, 8, 16384, 128, 128),
    Shape("own block 128", "block:128", 4, 8, 12288, 64, 64),
    Shape("stride column 128", "stride:128", 4, 8, 12288, 64, 64),
    Shape("imagenet64 column", "stride:128", 4, 16, 12288, 32, 32),
    Shape("imagenet64 block", "block:128", 4, 16, 12288, 32, 32),
    Shape("cifar10 column", "stride:96", 16, 2, 3072, 64, 128),
    Shape("music block", "block:256", 1, 8, 65536, 64, 64),
    Shape("music column", "stride:256", 1, 8, 65536, 64, 64),
    Shape("1M block", "block:1024", 1, 8, 1048576, 64, 64),
    Shape("1M column", "stride:1024", 1, 8, 1048576, 64, 64),
    Shape("fixed merged", "fixed:128,32", 4, 8, 12288, 64, 64),
    Shape("strided merged", "strided:128", 4, 8, 12288, 64, 64),
    Shape("window 128", "window:128", 4, 8, 12288, 64, 64),
    Shape("fixed merged, batch 2", "fixed:128,32", 2, 8, 12288, 64, 64),
]


def allowed(shape):
    """May the query at q look at the key at k? The patterns as docs/patterns.md has them."""
    l, c = shape.numbers()
    return {
        "dense": lambda q, k: k <= q,
        "window": lambda q, k: (k <= q) & (q - k < l),
        "block": lambda q, k: (k <= q) & (q // l == k // l),
        "stride": lambda q, k: (k <= q) & ((q - k) % l == 0),
        "strided": lambda q, k: (k <= q) & ((q - k < l) | ((q - k) % l == 0)),
        "fixed": lambda q, k: (k <= q) & ((q // l == k // l) | (k % l >= l - c)),
    }[shape.kind()]


def count_pairs(shape):
    l, c = shape.numbers()
    q = torch.arange(shape.n)
    return {
        "dense": lambda: q + 1,
        "window": lambda: (q + 1).clamp(max=l),
        "block": lambda: q % l + 1,
        "stride": lambda: q // l + 1,
        "strided": lambda: (q + 1).clamp(max=l) + q // l,
        "fixed": lambda: q % l + 1 + q // l * c,
    }[shape.kind()]().sum().item()


@dataclasses.dataclass
class Peer:
    """prepare: q, k, v of (B, N, H, D) -> operands of core; finish: its output -> (B, N, H, Dv)."""
    core: typing.Callable
    prepare: typing.Callable = lambda q, k, v: (q, k, v)
    finish: typing.Callable = lambda o: o
    by_head: bool = False  # the projection is packed (H, 3, D), not (3, H, D)
    counts_all: bool = True  # prepare and finish are part of the time
    note: str = ""

    def whole(self, q, k, v):
        return self.finish(self.core(*self.prepare(q, k, v))).contiguous()


def fused(backend, shape):
    def attend(q, k, v):
        with sdpa_kernel(BACKENDS[backend]):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=shape.width**-0.5)
    return attend


def swap(t):
    return t.transpose(1, 2)


def natural(shape, backend):
    return Peer(fused(backend, shape), lambda *qkv: map(swap, qkv), swap)


def own_blocks(t, l):  # (B, N, H, D) -> (B * blocks, H, l, D)
    return swap(t.reshape(-1, l, *t.shape[2:]))


def reshaped(shape, backend):
    l, _ = shape.numbers()
    return Peer(fused(backend, shape), lambda *qkv: (own_blocks(t, l) for t in qkv),
                lambda o: swap(o).reshape(shape.batch, shape.n, shape.heads, -1))


def transposed(shape, backend, padded=False, counts_all=True):
    l, _ = shape.numbers()
    rows = shape.n // l

    def columns(t):  # (B, N, H, D) -> (B * l, H, rows, D), copied
        t = swap(t.unflatten(1, (rows, l)))
        missing = shape.v_width - t.shape[-1]
        return swap((F.pad(t, (0, missing)) if padded and missing else t.contiguous()).flatten(0, 1))

    def back(o):
        return swap(swap(o).unflatten(0, (shape.batch, l))).reshape(shape.batch, shape.n, shape.heads, -1)

    return Peer(fused(backend, shape), lambda *qkv: map(columns, qkv), back, counts_all=counts_all)


def strided_views(shape, backend):
    l, _ = shape.numbers()
    rows = shape.n // l
    return Peer(fused(backend, shape),
                lambda *qkv: (swap(t.view(shape.batch, rows, l * shape.heads, -1)) for t in qkv),
                lambda o: swap(o).reshape(shape.batch, shape.n, shape.heads, -1), by_head=True)


def block_mask(may, queries, keys):
    return create_block_mask(lambda b, h, q, k: may(q, k), None, None, queries, keys, device=DEVICE, _compile=True)


def compiled(function):
    return torch.compile(function, fullgraph=True, dynamic=False)


def flex(shape):
    mask = block_mask(allowed(shape), shape.n, shape.n)
    return Peer(compiled(lambda q, k, v: swap(flex_attention(swap(q), swap(k), swap(v), block_mask=mask))))


def summaries(t, l, c):  # the last c positions of each block
    return t.unflatten(1, (-1, l))[:, :, l - c:].flatten(1, 2)


def merge(first, second):
    """Two parts of one softmax, each (output, log-sum-exp) in natural layout. Every query has a key in the first; where
    it has none in the second, the weight of that is sigmoid(-inf) = 0."""
    (o1, lse1), (o2, lse2) = first, second
    share = torch.sigmoid(lse2 - lse1).unsqueeze(-1)
    return (o1 + share * (o2.float() - o1.float())).to(o1.dtype)


def two_calls(shape):
    l, c = shape.numbers()
    n, rows = shape.n, shape.n // l
    if shape.kind() == "fixed":
        near = block_mask(lambda q, k: k <= q, l, l)
        far = block_mask(lambda q, k: k // c < q // l, n, rows * c)
    else:
        near = block_mask(lambda q, k: (k <= q) & (q - k < l), n, n)
        far = block_mask(lambda q, k: (k < q) & (q // rows == k // rows), n, n)  # columns, one after the other

    def parts(call):
        def attend(q, k, v, mask):
            return (swap(t) for t in call(q, k, v, block_mask=mask, return_lse=True))

        def fixed(q, k, v):
            first = attend(*(own_blocks(t, l) for t in (q, k, v)), near)
            second = attend(swap(q), swap(summaries(k, l, c)), swap(summaries(v, l, c)), far)
            return merge((t.reshape(shape.batch, n, *t.shape[2:]) for t in first), second)

        def strided(q, k, v):
            first = attend(swap(q), swap(k), swap(v), near)
            second = attend(*(swap(swap(t.unflatten(1, (rows, l))).flatten(1, 2)) for t in (q, k, v)), far)
            return merge(first, (swap(t.unflatten(1, (l, rows))).flatten(1, 2) for t in second))

        return fixed if shape.kind() == "fixed" else strided

    peer = Peer(compiled(parts(flex_attention)))
    try:
        Problem(shape, peer).backward()
    except Exception as error:
        peer = Peer(parts(compiled(flex_attention)), note=f"merged in eager mode: {reason_of(error)}")
    return peer


def keys_appended(shape):
    l, c = shape.numbers()
    n = shape.n

    def may(q, k):
        return torch.where(k < n, (k <= q) & (q // l == k // l), (k - n) // c < q // l)

    mask = block_mask(may, n, n + n // l * c)

    def attend(q, k, v):
        k, v = (torch.cat([t, summaries(t, l, c)], dim=1) for t in (k, v))
        return swap(flex_attention(swap(q), swap(k), swap(v), block_mask=mask))

    return Peer(compiled(attend))


def peers_of(shape):
    """[(name, what builds it from the shape, is it compiled)]"""
    both = list(BACKENDS)
    if shape.kind() == "dense":
        return [(b, lambda s, b=b: natural(s, b), False) for b in both]
    if shape.kind() == "block":
        return [(f"reshape + {b}", lambda s, b=b: reshaped(s, b), False) for b in both]
    if shape.kind() == "stride":
        peers = [
            ("transpose + cuDNN", lambda s: transposed(s, "cuDNN"), False),
            ("transpose + cuDNN, copies not counted", lambda s: transposed(s, "cuDNN", counts_all=False), False),
            ("strided views + cuDNN", lambda s: strided_views(s, "cuDNN"), False),
        ]
        if shape.width == shape.v_width:
            return peers + [("strided views + flash", lambda s: strided_views(s, "flash"), False)]
        return peers + [
            ("transpose + cuDNN, padded", lambda s: transposed(s, "cuDNN", padded=True), False),
            ("transpose + cuDNN, padded, copies not counted",
             lambda s: transposed(s, "cuDNN", padded=True, counts_all=False), False),
        ]
    peers = [("FlexAttention", flex, True)]
    if shape.kind() in ("fixed", "strided"):
        peers.append(("two FlexAttention calls", two_calls, True))
    if shape.kind() == "fixed":
        peers.append(("one call, keys appended", keys_appended, True))
    return peers


def random_inputs(shape, by_head):
    """q, k, v of (B, N, H, D), views of one packed tensor."""
    widths = [shape.width, shape.width, shape.v_width]
    packed = torch.empty(shape.batch, shape.n, shape.heads * sum(widths), device=DEVICE, dtype=torch.bfloat16)
    packed.uniform_(-1, 1)
    if by_head:
        parts = packed.unflatten(2, (shape.heads, -1)).split(widths, dim=3)
    else:
        parts = (t.unflatten(2, (shape.heads, -1)) for t in packed.split([shape.heads * w for w in widths], dim=2))
    return [t.detach().requires_grad_() for t in parts]


class Problem:
    """Operands on which a peer is timed; the graph of its backward is made when that is first asked for."""

    def __init__(self, shape, peer):
        self.peer, self.operands, self.o = peer, random_inputs(shape, peer.by_head), None
        if not peer.counts_all:
            with torch.no_grad():
                self.operands = [t.detach().requires_grad_() for t in peer.prepare(*self.operands)]

    def forward(self):
        return (self.peer.whole if self.peer.counts_all else self.peer.core)(*self.operands)

    def backward(self):
        if self.o is None:
            self.o = self.forward()
            self.d_o = torch.empty_like(self.o).uniform_(-1, 1)
        gradients = torch.autograd.grad(self.o, self.operands, self.d_o, retain_graph=True)
        return [t.contiguous() for t in gradients] if self.peer.counts_all else gradients


class Check:
    """A peer's output and gradients beside dense masked attention in f32."""

    def __init__(self, shape, peer):
        self.shape, self.qkv = shape, random_inputs(shape, peer.by_head)
        self.o = peer.whole(*self.qkv)
        self.d_o = torch.empty_like(self.o).uniform_(-1, 1)
        position = torch.arange(shape.n, device=DEVICE, dtype=torch.int32)
        self.forbidden = ~allowed(shape)(position[:, None], position[None, :])

    def error(self, ours, theirs):
        most = difference = 0.0
        for (b, h), reference in theirs.items():
            most = max(most, reference.abs().max().item())
            head = (ours[b, :, h].float() - reference).abs()
            difference = max(difference, head.max().item() if head.isfinite().all() else float("inf"))
        return require_small(difference / most)

    def references(self, with_gradients):
        results = [{}, {}, {}, {}]
        for b, h in {(0, 0), (self.shape.batch - 1, self.shape.heads - 1)}:
            q, k, v = (t[b, :, h].detach().float().requires_grad_(with_gradients) for t in self.qkv)
            scores = (q @ k.T * self.shape.width**-0.5).masked_fill(self.forbidden, float("-inf"))
            o = scores.softmax(dim=-1) @ v
            results[0][b, h] = o.detach()
            if with_gradients:
                for result, t in zip(results[1:], torch.autograd.grad(o, (q, k, v), self.d_o[b, :, h].float())):
                    result[b, h] = t
        return results

    def forward(self):
        return self.error(self.o.detach(), self.references(False)[0])

    def backward(self):
        gradients = torch.autograd.grad(self.o, self.qkv, self.d_o)
        return max(self.error(*pair) for pair in zip(gradients, self.references(True)[1:]))


def require_small(error):
    if not error < TOLERANCE:
        raise ValueError(f"differs from dense masked attention by {error:.4f}")
    return error


def median_ms(works):
    """Of one work after the other, in turns, without the GPU ever waiting for the CPU."""
    for turn in range(max(3, len(works))):
        works[turn % len(works)]()
    torch.cuda.synchronize()
    moments = [torch.cuda.Event(enable_timing=True) for _ in range(21)]
    begin = time.perf_counter()
    moments[0].record()
    works[0]()
    moments[1].record()
    host = time.perf_counter() - begin
    torch.cuda.synchronize()
    runs = 20 if moments[0].elapsed_time(moments[1]) <= 5 else 7
    torch.cuda._sleep(int(2e9 * (0.002 + 1.5 * runs * host)))  # cycles in which the CPU gets ahead
    moments[0].record()
    for run in range(runs):
        works[run % len(works)]()
        moments[run + 1].record()
    torch.cuda.synchronize()
    return statistics.median(moments[run].elapsed_time(moments[run + 1]) for run in range(runs))


def reason_of(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


def begin_row():
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(1)


def measure(shape, name, build, row):
    """Fills the row as far as it gets."""
    begin_row()
    flops = 2 * count_pairs(shape) * shape.batch * shape.heads
    stage = "build"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            peer = build(shape)
            if peer.note:
                row["note"] = peer.note
            stage = "forward"
            if shape.n <= CHECK_LENGTH:
                check = Check(shape, peer)
            else:
                short = dataclasses.replace(shape, batch=1, n=CHECK_LENGTH)
                check = Check(short, build(short))
            row["error"] = check.forward()
            problems = [Problem(shape, peer)]
            size = sum(t.nbytes for t in problems[0].operands) + shape.batch * shape.n * shape.heads * shape.v_width * 2
            problems += [Problem(shape, peer) for _ in range(-(-CACHE_BYTES // size) - 1)]
            row["forward_ms"] = median_ms([p.forward for p in problems])
            row["forward_tflops"] = flops * (shape.width + shape.v_width) / row["forward_ms"] / 1e9
            stage = "backward"
            row["error"] = max(row["error"], check.backward())
            del check
            row["backward_ms"] = median_ms([p.backward for p in problems])
            row["backward_tflops"] = flops * (3 * shape.width + 2 * shape.v_width) / row["backward_ms"] / 1e9
        except Exception as error:
            row["reason"] = f"{stage}: {reason_of(error)}"
            if "No available kernel" in str(error):  # the warnings say why
                why = dict.fromkeys(str(w.message).partition(" (Triggered")[0] for w in heard)
                row["reason"] += " " + "; ".join(w for w in why if "disabled" not in w and "because" not in w)[:300]


def compile_ahead(rows, seconds):
    """Compiles each (shape, name) in a process of its own; {(shape's name, name): why not}."""
    children, failed = [], {}
    for shape, name in rows:
        output = tempfile.TemporaryFile("w+")
        command = [sys.executable, os.path.abspath(__file__), "--shape", shape.name, "--compile-only", name]
        children.append((shape.name, name, output, subprocess.Popen(command, stdout=output, stderr=output)))
    deadline = time.monotonic() + seconds
    for shape_name, name, output, child in children:
        try:
            if child.wait(max(0.0, deadline - time.monotonic())) != 0:
                output.seek(0)
                failed[shape_name, name] = "compile: " + (output.read().strip().splitlines() or ["no word"])[-1][:300]
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            failed[shape_name, name] = f"compile: not done in {seconds:.0f} s"
        output.close()
    return failed


def print_row(row):
    def number(key, digits):
        return "-" if row[key] is None else f"{row[key]:.{digits}f}"
    print(f"{row['shape']:22} {row['peer']:46} {number('forward_ms', 3):>8} {number('backward_ms', 3):>8} "
          f"{number('forward_tflops', 0):>8} {number('backward_tflops', 0):>8} {number('error', 4):>8}"
          + "".join(f"  {row[key]}" for key in ("note", "reason") if key in row), flush=True)


def main():
    begin = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=[s.name for s in SHAPES], metavar="NAME")
    parser.add_argument("--peer", action="append", metavar="TEXT")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--total", type=float, default=200)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--compile-only", metavar="PEER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch._functorch.config.donated_buffer = False  # or a compiled backward could not run twice
    torch._inductor.config.compile_threads = 1  # the processes that compile are many already
    selected = [(shape, *peer) for shape in SHAPES for peer in peers_of(shape)
                if not arguments.shape or shape.name in arguments.shape]
    if arguments.compile_only:
        for shape, name, build, _ in selected:
            if name == arguments.compile_only:
                begin_row()
                try:
                    Problem(shape, build(shape)).backward()
                    torch.cuda.synchronize()
                except Exception as error:
                    sys.exit(reason_of(error))
        return
    selected = [s for s in selected if not arguments.peer or any(t.lower() in s[1].lower() for t in arguments.peer)]
    if not selected:
        parser.error("no such peer of these shapes")
    # What needs no compilation first; the third way for a fixed pattern last.
    selected.sort(key=lambda s: (s[3], s[1].startswith("one call")))

    results = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
               "gpu": torch.cuda.get_device_name(), "attention": []}
    print(f"{results['gpu']}; PyTorch {torch.__version__}, CUDA {results['cuda']}, cuDNN {results['cudnn']}")
    columns = "".join(f" {head:>8}" for head in ("fwd ms", "bwd ms", "TFLOP/s", "TFLOP/s", "error"))
    print(f"{'shape':22} {'peer':46}{columns}", flush=True)
    failed = None
    for shape, name, build, is_compiled in selected:
        row = {"shape": shape.name, "pattern": shape.pattern, "peer": name, "batch": shape.batch, "heads": shape.heads,
               "n": shape.n, "width": shape.width, "v_width": shape.v_width, "forward_ms": None, "backward_ms": None,
               "forward_tflops": None, "backward_tflops": None, "error": None}
        left = arguments.total - (time.monotonic() - begin)
        if is_compiled and failed is None and left > 0:
            begin_row()
            failed = compile_ahead([s[:2] for s in selected if s[3]], min(arguments.seconds, left))
            left = arguments.total - (time.monotonic() - begin)
        if left <= 0:
            row["reason"] = f"not begun within {arguments.total:.0f} s"
        elif is_compiled and (shape.name, name) in failed:
            row["reason"] = failed[shape.name, name]
        else:
            measure(shape, name, build, row)
        print_row(row)
        results["attention"].append(row)
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
