#!/usr/bin/env python3
"""What a call of longstride.attention costs the CPU on a GPU, beside the launch alone.

    python3 bench/torch_call.py [--calls 2000]

Microseconds a call, the median of seven rounds, of tensors so small that the GPU is never waited for: the module's own call with everything
prepared (the launch as C++ makes it, and the passing of its arguments), longstride.attention without and with gradients, the
operator that torch.compile sees, and PyTorch's scaled_dot_product_attention.
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F

import longstride
from longstride import _torch

PATTERN, SHAPE = "fixed:64,16", (1, 2, 128, 64)


def microseconds(call, calls):
    for _ in range(200):
        call()
    rounds = []
    for _ in range(7):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - begin) / calls * 1e6)
    return statistics.median(rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    q, k, v = (torch.randn(SHAPE, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    scale = _torch.scale_of(None, SHAPE[3])
    o, lse = _torch._gpu_forward(q, k, v, PATTERN, scale, True)
    plan, stream = _torch._gpu_plan(q, PATTERN, True)
    prepared = _torch._described((q, k, v, o), lse, True)
    rows = [t.transpose(1, 2) for t in (q, k, v)]
    launch = microseconds(lambda: plan.forward_on(stream, *prepared, scale), calls)
    print(f"the launch, arguments prepared      {launch:7.1f}")
    with torch.no_grad():
        for name, call in (
            ("longstride.attention, no gradients", lambda: longstride.attention(q, k, v, PATTERN)),
            ("the operator alone, no gradients", lambda: torch.ops.longstride.attention(*rows, PATTERN, scale)),
            ("scaled_dot_product_attention", lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        ):
            taken = microseconds(call, calls)
            print(f"{name:35} {taken:7.1f}  {taken - launch:+.1f}")
    learnt = [t.requires_grad_() for t in (q, k, v)]
    taken = microseconds(lambda: longstride.attention(*learnt, PATTERN), calls)
    print(f"longstride.attention, gradients     {taken:7.1f}  {taken - launch:+.1f}")


if __name__ == "__main__":
    main()
