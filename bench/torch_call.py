#!/usr/bin/env python3
"""What a call of longstride.attention costs the CPU on a GPU, beside the launch alone.

    python3 bench/torch_call.py [--calls 2000] [--profile]

Microseconds a call and what that is beyond the launch: the median of nine rounds, in which all that is measured takes turns, of
tensors so small and so few calls in a row that the GPU is never waited for. The launch is the module's own call with everything
prepared; beside it and longstride.attention there is PyTorch's scaled_dot_product_attention, without gradients, with them (the
forward call, which autograd records) and backward, and what a call is made of. Of that an autograd.Function that only keeps what
attention keeps is PyTorch's own. --profile prints what Python's profiler says of calls with gradients.
"""
import argparse
import cProfile
import pstats
import statistics
import time

import torch
import torch.nn.functional as F

import longstride
from longstride import _torch

PATTERN, SHAPE = "fixed:64,16", (1, 2, 128, 64)
BURST = 50  # calls in a row; their launches have room in the queue of a stream


def round_of(call, calls):
    taken = 0.0
    for _ in range(max(1, calls // BURST)):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(BURST):
            call()
        taken += time.perf_counter() - begin
    return taken / (max(1, calls // BURST) * BURST) * 1e6


class Keeps(torch.autograd.Function):
    """What PyTorch takes to record any function of three tensors that keeps five."""

    @staticmethod
    def forward(ctx, q, k, v, o, lse):
        ctx.save_for_backward(q, k, v, o, lse)
        return o.detach()

    @staticmethod
    def backward(ctx, d_o):
        q, k, v, o, lse = ctx.saved_tensors
        return d_o, d_o, d_o, None, None


def without_gradients(call):
    def quietly():
        with torch.no_grad():
            return call()

    return quietly


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    plain = q, k, v = [torch.randn(SHAPE, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    learnt = [t.clone().requires_grad_() for t in plain]
    made = [t * 1 for t in learnt]  # as in a model: of a projection, not the weights themselves
    rows = [t.transpose(1, 2) for t in plain]
    scale = _torch.scale_of(None, SHAPE[3])
    prepared, stream = _torch._prepared_for(q, k, v, PATTERN, None, True)
    o, lse = _torch._forward(q, k, v, prepared, stream)
    d_o = torch.randn_like(o)
    at = [t.data_ptr() for t in (q, k, v, o, lse)]
    gradients = [torch.empty_strided(SHAPE, stride, device="cuda", dtype=q.dtype) for stride in prepared.gradient_strides]
    scratch = torch.empty(prepared.scratch_bytes, device="cuda", dtype=torch.uint8)
    backward_at = tuple(t.data_ptr() for t in (d_o, *gradients))

    attend = lambda given: longstride.attention(*given, PATTERN)
    dense = lambda given: F.scaled_dot_product_attention(*given, is_causal=True)

    def back(function):
        result = function(learnt)
        return lambda: torch.autograd.grad(result, learnt, d_o, retain_graph=True)

    forward_launch, backward_launch = "the launch of forward, arguments prepared", "the launch of backward, arguments prepared"
    nothing = without_gradients(lambda: None)
    groups = {  # name: (call, what is beyond)
        forward_launch: (lambda: prepared.forward(stream, *at), None),
        "longstride.attention, no gradients": (lambda: attend(plain), forward_launch),
        "   the operator alone, no gradients": (lambda: torch.ops.longstride.attention(*rows, PATTERN, scale), forward_launch),
        "longstride.attention, gradients": (lambda: attend(learnt), forward_launch),
        "   of tensors that were computed": (lambda: attend(made), forward_launch),
        "   under no_grad": (without_gradients(lambda: attend(learnt)), forward_launch),
        "scaled_dot_product_attention, no gradients": (lambda: dense(plain), forward_launch),
        "scaled_dot_product_attention, gradients": (lambda: dense(learnt), forward_launch),
        "   of tensors that were computed ": (lambda: dense(made), forward_launch),
        backward_launch: (
            lambda: prepared.call.backward(stream, *at, d_o.stride(), backward_at, scratch.data_ptr(), scratch.numel()),
            None,
        ),
        "longstride.attention, backward": (back(attend), backward_launch),
        "scaled_dot_product_attention, backward": (back(dense), backward_launch),
        "an autograd.Function that only keeps": (lambda: Keeps.apply(*learnt, o, lse), None),
        "   of tensors that were computed  ": (lambda: Keeps.apply(*made, o, lse), None),
        "   backward": (back(lambda given: Keeps.apply(*given, o, lse)), None),
        "no_grad() and nothing": (nothing, None),
        "looking up what is prepared": (lambda: _torch._prepared_for(q, k, v, PATTERN, None, True), None),
        "asking whether anybody looks": (lambda: _torch._unwatched(q, k, v), None),
        "allocating o and lse": (
            lambda: (
                q.new_empty_strided(prepared.o_shape, prepared.o_stride),
                q.new_empty_strided(prepared.lse_shape, prepared.lse_stride, dtype=torch.float32),
            ),
            None,
        ),
        "looked up: allocating and launching": (lambda: _torch._forward(q, k, v, prepared, stream), None),
    }
    for call, _ in groups.values():
        round_of(call, 200)
    taken = {name: [] for name in groups}
    for _ in range(9):
        for name, (call, _) in groups.items():
            taken[name].append(round_of(call, arguments.calls))
    medians = {name: statistics.median(rounds) for name, rounds in taken.items()}
    for name, (_, beyond) in groups.items():
        print(f"{name:44} {medians[name]:7.1f}" + (f"  {medians[name] - medians[beyond]:+.1f}" if beyond else ""))
    if arguments.profile:
        profile = cProfile.Profile()
        profile.enable()
        round_of(lambda: attend(learnt), arguments.calls)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
