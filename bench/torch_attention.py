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
    ... flash-attn-4               the package; over appended keys in one call, by lists of blocks and a mask
    ... cuDNN flex                 flex_attention of nvidia-cudnn-frontend, with the pattern as intervals of keys
    two ... calls                  of these: the window, and the columns as more heads, merged by log-sum-exp
    ..., deterministic             with that option; a note says whether two backwards gave the same bits

PyTorch does not bring flash-attn-4 and nvidia-cudnn-frontend (1.32 or later): without them their rows say so.

--shape is a whole name, --peer a part of one. What FlexAttention and these two need is compiled first by processes of
their own, all at once and into the caches on disk, for at most --seconds; a peer that is not ready by then has failed.
After --total seconds nothing more is begun. FILE is rewritten after each row.
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
import warnings

import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
from torch_attention_cute import cute_peers_of, versions
from torch_attention_peers import DEVICE, SHAPES, Problem, allowed, count_pairs, peers_of, random_inputs, reason_of

CACHE_BYTES, CHECK_LENGTH, TOLERANCE = 150 << 20, 16384, 0.02


class Check:
    """A peer's output and gradients beside dense masked attention in f32."""

    def __init__(self, shape, peer):
        self.shape, self.repeats, self.qkv = shape, peer.repeats, random_inputs(shape, peer.by_head)
        self.o = peer.whole(*self.qkv)
        self.d_o = torch.empty_like(self.o).uniform_(-1, 1)
        position = torch.arange(shape.n, device=DEVICE, dtype=torch.int32)
        self.forbidden = ~allowed(shape)(position[:, None], position[None, :])
        self.note = ""

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
        gradients = torch.autograd.grad(self.o, self.qkv, self.d_o, retain_graph=self.repeats)
        if self.repeats:
            again = torch.autograd.grad(self.o, self.qkv, self.d_o)
            self.note = "the same bits twice" if all(map(torch.equal, gradients, again)) else "not the same bits twice"
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
            if check.note:
                row["note"] = "; ".join(filter(None, (peer.note, check.note)))
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
    selected = [(shape, *peer) for shape in SHAPES for peer in peers_of(shape) + cute_peers_of(shape)
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
               "packages": versions(), "gpu": torch.cuda.get_device_name(), "attention": []}
    print(f"{results['gpu']}; PyTorch {torch.__version__}, CUDA {results['cuda']}, cuDNN {results['cudnn']}"
          + "".join(f", {package} {version}" for package, version in results["packages"].items()))
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
