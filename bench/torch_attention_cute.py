"""The peers of `torch_attention.py` that are written in NVIDIA's CuTe DSL: flash-attn-4 and the cuDNN frontend's flex
attention. Neither comes with PyTorch, so nothing of theirs is imported before a peer of theirs is built."""
import dataclasses
import importlib.metadata
import os

import torch
from torch_attention_peers import DEVICE, Peer, Problem, compiled, own_blocks, reason_of, swap

# Compiled kernels stay on disk, where a process that compiles ahead leaves them for the one that measures.
for library in ("FLASH_ATTENTION", "FLEX_ATTENTION"):
    os.environ.setdefault(f"{library}_CUTE_DSL_CACHE_ENABLED", "1")

PACKAGES = "flash-attn-4", "nvidia-cudnn-frontend"


def versions():
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


class Append(torch.autograd.Function):
    """The last c positions of each block of l, then all positions. Autograd's own slices would fill and add a tensor of
    the whole size for each part, so the gradient is put together by hand: one copy, and one sum for the few."""

    @staticmethod
    def forward(ctx, t, l, c):
        ctx.l, ctx.c = l, c
        few = t.shape[1] // l * c
        whole = t.new_empty(t.shape[0], few + t.shape[1], *t.shape[2:])
        whole[:, :few].unflatten(1, (-1, c)).copy_(t.unflatten(1, (-1, l))[:, :, l - c:])
        whole[:, few:].copy_(t)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        few = gradient.shape[1] // (ctx.l + ctx.c) * ctx.c
        own = gradient[:, few:].clone(memory_format=torch.contiguous_format)
        own.unflatten(1, (-1, ctx.l))[:, :, ctx.l - ctx.c:].add_(gradient[:, :few].unflatten(1, (-1, ctx.c)))
        return own, None, None


class Dense(torch.autograd.Function):
    """Its gradient is contiguous: not every kernel takes another."""

    @staticmethod
    def forward(ctx, t):
        return t.view_as(t)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous()


def intervals(shape):
    """[(begin, end)] of the keys that each query sees; for fixed those of the appended keys."""
    l, c = shape.numbers()
    q = torch.arange(shape.n, device=DEVICE)
    few = shape.n // l * c if c else 0
    return {
        "dense": lambda: triangle(shape.n),
        "window": lambda: [((q - l + 1).clamp(min=0), q + 1)],
        "block": lambda: [(q // l * l, q + 1)],
        "fixed": lambda: [(0 * q, q // l * c), (few + q // l * l, few + q + 1)],
    }[shape.kind()]()


def triangle(n):
    q = torch.arange(n, device=DEVICE)
    return [(0 * q, q + 1)]


def block_lists(ranges, rows, columns, keys):
    """For each tile of queries the tiles of keys that are masked and those that are full, then for each tile of keys
    those of queries: twice (masked count, masked, full count, full). A list is as long as the longest needs, so memory
    does not grow with the square of the sequence."""
    queries = -(-len(ranges[0][0]) // rows)
    keys = -(-keys // columns)
    masked, full = [], []
    for begin, end in ranges:
        begin, end = begin.view(queries, rows), end.view(queries, rows)
        first, last = begin.amin(1) // columns, -(-end.amax(1) // columns)
        full_first, full_last = -(-begin.amax(1) // columns), end.amin(1) // columns
        counts = (last - first).clamp(min=0)
        query = torch.repeat_interleave(torch.arange(queries, device=DEVICE), counts)
        key = torch.arange(len(query), device=DEVICE) - (counts.cumsum(0) - counts - first)[query]
        is_full = (key >= full_first[query]) & (key < full_last[query])
        pair = torch.stack([query, key])
        masked.append(pair[:, ~is_full])
        full.append(pair[:, is_full])

    def lists(pairs, owner, count):
        pairs = torch.unique(torch.cat(pairs, dim=1)[[owner, 1 - owner]], dim=1)  # sorted, the owner first
        counts = torch.bincount(pairs[0], minlength=count)
        members = torch.zeros(count, max(1, int(counts.max())), device=DEVICE, dtype=torch.int32)
        turn = torch.arange(pairs.shape[1], device=DEVICE) - (counts.cumsum(0) - counts)[pairs[0]]
        members[pairs[0], turn] = pairs[1].int()
        return counts.int()[None, None], members[None, None]

    return [(*lists(masked, owner, count), *lists(full, owner, count)) for owner, count in ((0, queries), (1, keys))]


def flash4(shape, **options):
    """flash-attn-4 as a function of q, k and v of (B, N, H, D); with_sum: (output, log-sum-exp)."""
    from flash_attn.cute import flash_attn_func

    def attend(q, k, v, with_sum=False):
        result = flash_attn_func(q, k, v, softmax_scale=shape.width**-0.5, return_lse=with_sum, **options)
        return result if with_sum else result[0]

    return attend


def cudnn_flex(shape, ranges, deterministic=False):
    """cuDNN's flex attention, likewise. Its plan of the mask is made at the first call, so it is not part of the time:
    neither is FlexAttention's mask."""
    from cudnn.flex_attention import create_mask_plan, flex_attn_func
    # The table says end, begin, end, ..: the first interval begins at 0, and is empty where none of the pattern's does.
    ends, plan = [t for both in ranges for t in both], []
    ends = [0 * ends[0], *ends] if ends[0].any() else ends[1:]

    def attend(q, k, v, with_sum=False):
        if not plan:
            table = torch.stack(ends).int().repeat(1, len(q)).unsqueeze(0).contiguous()
            plan.append(create_mask_plan(table, q, k, v, build_backward=True))
        return flex_attn_func(q, k, v, mask_plan=plan[0], softmax_scale=shape.width**-0.5,
                              deterministic=deterministic, return_lse=with_sum)

    return attend


def blocks_apart(shape, attend):
    """The own blocks as a batch of short sequences."""
    l, _ = shape.numbers()
    return Peer(attend, lambda *qkv: (swap(own_blocks(t, l)) for t in qkv),
                lambda o: o.reshape(shape.batch, shape.n, shape.heads, -1))


def columns_apart(shape, attend):
    """The columns as more heads, without copies."""
    l, _ = shape.numbers()
    return Peer(attend, lambda *qkv: (t.view(shape.batch, shape.n // l, l * shape.heads, -1) for t in qkv),
                lambda o: o.reshape(shape.batch, shape.n, shape.heads, -1), by_head=True)


def appended(shape, attend):
    l, c = shape.numbers()
    return Peer(attend, lambda q, k, v: (q, Append.apply(k, l, c), Append.apply(v, l, c)))


def two_parts(shape, near, far):
    """The window, and of the column what comes before the query itself, as more heads: the rows but the first look at
    the rows but the last. The two are merged by log-sum-exp."""
    l, _ = shape.numbers()
    rows = shape.n // l

    @compiled
    def merge(near_o, near_sum, far_o, far_sum):  # outputs (B, N, H, D), sums (B, H, N)
        far_o = far_o.reshape(shape.batch, shape.n - l, shape.heads, -1)
        far_sum = swap(far_sum).reshape(shape.batch, shape.n - l, shape.heads)
        share = torch.sigmoid(far_sum - swap(near_sum)[:, l:]).unsqueeze(-1)
        late = near_o[:, l:].float()
        return torch.cat([near_o[:, :l], (late + share * (far_o.float() - late)).to(near_o.dtype)], dim=1)

    def attend(q, k, v):
        columns = [t.view(shape.batch, rows, l * shape.heads, -1) for t in (q, k, v)]
        parts = near(q, k, v, with_sum=True), far(columns[0][:, 1:], *(t[:, :-1] for t in columns[1:]), with_sum=True)
        return merge(*(Dense.apply(t) for part in parts for t in part))

    return Peer(attend, by_head=True)


def fixed_mask(few, l, c):
    """fixed:l,c over appended keys, as flash-attn-4 wants a mask: in the CuTe DSL, on vectors of one index."""
    import cutlass.cute as cute

    @cute.jit
    def may(batch, head, q, k, lengths, tensors):
        return (k < q // l * c) | ((k >= q // l * l + few) & (k <= q + few))

    return may


def flash4_appended(shape):
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    l, c = shape.numbers()
    few = shape.n // l * c
    refused = []
    for rows in (128, 256):  # what the kernels' own tiles of queries must divide; of keys all of them want 128
        lists = [BlockSparseTensorsTorch(*four, block_size=(rows, 128))
                 for four in block_lists(intervals(shape), rows, 128, few + shape.n)]
        peer = appended(shape, flash4(shape, mask_mod=fixed_mask(few, l, c), block_sparse_tensors=lists[0],
                                      block_sparse_tensors_bwd=lists[1]))
        try:
            Problem(shape, peer).backward()
        except Exception as error:
            refused.append(f"tiles of {rows} x 128: {reason_of(error)}")
            continue
        peer.note = "; ".join(refused)
        return peer
    raise ValueError("; ".join(refused))


def flash4_peers(shape):
    l, _ = shape.numbers()

    def causal(s, **options):
        return flash4(s, causal=True, **options)

    def window(s, **options):
        return flash4(s, window_size=(l - 1, 0), **options)

    name = "flash-attn-4"
    return {
        "dense": [(name, lambda s: Peer(causal(s))),
                  (f"{name}, deterministic", lambda s: Peer(causal(s, deterministic=True), repeats=True))],
        "window": [(name, lambda s: Peer(window(s))),
                   (f"{name}, deterministic", lambda s: Peer(window(s, deterministic=True), repeats=True))],
        "block": [(f"reshape + {name}", lambda s: blocks_apart(s, causal(s)))],
        "stride": [(f"strided views + {name}", lambda s: columns_apart(s, causal(s)))],
        "fixed": [(f"{name}, keys appended", flash4_appended)],
        "strided": [(f"two {name} calls", lambda s: two_parts(s, window(s), causal(s)))],
    }[shape.kind()]


def cudnn_peers(shape):
    name = "cuDNN flex"

    def build(s, exact):
        l, _ = s.numbers()
        if s.kind() == "fixed":
            peer = appended(s, cudnn_flex(s, intervals(s), exact))
        elif s.kind() == "stride":
            peer = columns_apart(s, cudnn_flex(s, triangle(s.n // l), exact))
        elif s.kind() == "strided":
            window = dataclasses.replace(s, pattern=f"window:{l}")
            peer = two_parts(s, cudnn_flex(s, intervals(window), exact), cudnn_flex(s, triangle(s.n // l - 1), exact))
        else:
            peer = Peer(cudnn_flex(s, intervals(s), exact))
        peer.repeats = exact
        return peer

    name = {"stride": f"strided views + {name}", "fixed": f"{name}, keys appended",
            "strided": f"two {name} calls"}.get(shape.kind(), name)
    return [(name, lambda s: build(s, False)), (f"{name}, deterministic", lambda s: build(s, True))]


def cute_peers_of(shape):
    """As peers_of: [(name, what builds it from the shape, is it compiled)]"""
    peers, found = [], versions()
    for package, made in zip(PACKAGES, (flash4_peers(shape), cudnn_peers(shape))):
        def refuse(_, package=package):
            raise ModuleNotFoundError(f"{package} is not installed")
        peers += [(name, build if package in found else refuse, package in found) for name, build in made]
    return peers
