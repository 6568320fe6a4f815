"""The shapes of `torch_attention.py`, and the ways in which a PyTorch user can put their attention together."""
import dataclasses
import typing

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DEVICE = "cuda"
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
    repeats: bool = False  # promises the same gradients, bit by bit, each time
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


def reason_of(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


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
