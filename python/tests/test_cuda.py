"""longstride.attention for tensors on a GPU: against its definition, on PyTorch's streams, in its graphs. Skipped without one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import longstride
from test_attention import PATTERNS, by_definition

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU", allow_module_level=True)

SIZES = [1, 37, 300]  # none a multiple of a tile


def tensors(n, dtype, heads=2, width=64, value_width=64, seed=0):
    generator = torch.Generator("cuda").manual_seed(seed)
    draw = lambda d: torch.randn(2, heads, n, d, generator=generator, device="cuda").to(dtype)
    return draw(width), draw(width), draw(value_width)


def on_cpu(function, *given):
    """The definition has its mask on the CPU."""
    return function(*(t.double().cpu() if isinstance(t, torch.Tensor) else t for t in given))


@pytest.mark.parametrize("pattern", PATTERNS + ["fixed:64,16", "spread-fixed:32,8"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_those_of_the_definition(pattern, n, dtype):
    given = [t.requires_grad_() for t in tensors(n, dtype)]
    exact = [t.detach().double().cpu().requires_grad_() for t in given]
    d_o = torch.randn(given[2].shape, device="cuda").to(dtype)
    o, lse = longstride.attention(*given, pattern, return_lse=True)
    o.backward(d_o)
    dense, dense_lse = by_definition(*exact, pattern)
    gradients = torch.autograd.grad(dense, exact, d_o.double().cpu())
    tolerance = dict(atol=2e-5, rtol=1e-5) if dtype == torch.float32 else dict(atol=4e-2, rtol=2e-2)
    torch.testing.assert_close(o.double().cpu(), dense, **tolerance)
    torch.testing.assert_close(lse.double().cpu(), dense_lse, atol=1e-2 if dtype != torch.float32 else 1e-5, rtol=0)
    for tensor, gradient in zip(given, gradients):
        seen = ~gradient.isnan()
        torch.testing.assert_close(tensor.grad.double().cpu()[seen], gradient[seen], **tolerance)


@pytest.mark.parametrize("width", [64, 128])
def test_lists_so_long_that_dq_is_summed_in_memory(width):
    """Hopper's backward of five products needs more scratch than the others, and gives the same bits each time."""
    given = [t.requires_grad_() for t in tensors(3000, torch.bfloat16, heads=32, width=width, value_width=width)]
    o = longstride.attention(*given, "dense")
    d_o = torch.randn_like(o)
    gradients = torch.autograd.grad(o, given, d_o, retain_graph=True)
    for again, gradient in zip(torch.autograd.grad(o, given, d_o), gradients):
        assert torch.equal(again, gradient)
    exact = [t.detach().float().requires_grad_() for t in given]
    dense = torch.nn.functional.scaled_dot_product_attention(*exact, is_causal=True)
    for gradient, right in zip(gradients, torch.autograd.grad(dense, exact, d_o.float())):
        torch.testing.assert_close(gradient.float(), right, atol=4e-2, rtol=2e-2)


@pytest.mark.parametrize("layout", ["bhnd", "bnhd"])
def test_views_and_layouts(layout):
    """Queries, keys and values that are parts of one projection, an expanded gradient, values of another width."""
    packed = torch.randn(2, 70, 3, 4, 32, device="cuda", requires_grad=True)  # batch, positions, what, heads, width
    parts = [packed[:, :, i] for i in range(3)]
    if layout == "bhnd":
        parts = [part.transpose(1, 2) for part in parts]
    o = longstride.attention(*parts, "fixed:16,4", layout=layout)
    o.sum().backward()
    dense = packed.detach().double().cpu().requires_grad_()
    expected, _ = by_definition(*(dense[:, :, i].transpose(1, 2) for i in range(3)), "fixed:16,4")
    expected.sum().backward()
    o = o if layout == "bhnd" else o.transpose(1, 2)
    torch.testing.assert_close(o.double().cpu(), expected.detach(), atol=2e-5, rtol=0)
    torch.testing.assert_close(packed.grad.double().cpu(), dense.grad, atol=2e-5, rtol=0)
    q, k, v = tensors(50, torch.float32, width=16, value_width=40)
    wide = longstride.attention(q, k, v, "window:8")
    torch.testing.assert_close(wide.double().cpu(), on_cpu(by_definition, q, k, v, "window:8")[0], atol=2e-5, rtol=0)


def test_eager_and_operator_are_the_same_bits():
    given = [t.requires_grad_() for t in tensors(200, torch.bfloat16)]
    o = longstride.attention(*given, "strided:16")
    gradients = torch.autograd.grad(o.sum(), given)
    rows = [t.detach().transpose(1, 2).contiguous().requires_grad_() for t in given]
    other, _ = torch.ops.longstride.attention(*rows, "strided:16", 1 / 8)
    assert torch.equal(o, other.transpose(1, 2))
    for a, b in zip(gradients, torch.autograd.grad(other.sum(), rows)):
        assert torch.equal(a, b.transpose(1, 2))


def test_work_is_in_the_order_of_the_stream():
    """What writes q just before is seen, and what reads o just after sees it, on any stream, without waiting."""
    q, k, v = tensors(2000, torch.bfloat16)
    want = longstride.attention(q, k, v, "fixed:64,16")
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    results = []
    for repeat in range(6):
        stream = streams[repeat % 2]
        with torch.cuda.stream(stream):
            late = torch.zeros_like(q)
            torch.cuda._sleep(2_000_000)
            late.copy_(q)
            results.append(longstride.attention(late, k, v, "fixed:64,16") * 1)
    assert streams[1].query() is False  # nobody has waited
    torch.cuda.synchronize()
    for result in results:
        assert torch.equal(result, want)


def test_in_a_graph_of_pytorch():
    q, k, v = tensors(300, torch.bfloat16)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        longstride.attention(q, k, v, "fixed:64,16")  # plans
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        o = longstride.attention(q, k, v, "fixed:64,16")
    q.copy_(torch.randn_like(q))
    graph.replay()
    assert torch.equal(o, longstride.attention(q, k, v, "fixed:64,16"))


def test_compiles_without_a_break_in_the_graph():
    def block(q, k, v):
        return longstride.attention(q * 2, k, v, "fixed:64,16").relu().sum()

    given = [t.requires_grad_() for t in tensors(130, torch.bfloat16)]
    compiled = torch.compile(block, fullgraph=True)(*given)
    gradients = torch.autograd.grad(compiled, given)
    plain = torch.autograd.grad(block(*given), given)
    for a, b in zip(gradients, plain):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)


def test_autocast_and_transforms():
    q, k, v = tensors(64, torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        assert longstride.attention(q, k, v, "window:8").dtype == torch.bfloat16
    torch.library.opcheck(torch.ops.longstride.attention, (*(t.transpose(1, 2) for t in (q, k, v)), "window:8", 0.125))


def test_refusals():
    q, k, v = tensors(16, torch.bfloat16)
    with pytest.raises(longstride.WrongDevice, match="k is a tensor on cpu, must be on cuda:0, as q"):
        longstride.attention(q, k.cpu(), v, "dense")
    with pytest.raises(longstride.Error, match="k"):
        longstride.attention(q, k[:, :1], v, "dense")
    with pytest.raises(longstride.Error, match="fixd"):
        longstride.attention(q, k, v, "fixd:8")
    with pytest.raises(longstride.WrongType, match="torch.float64"):
        longstride.attention(q.double(), k.double(), v.double(), "dense")
    assert longstride.attention(q, k, v, "dense").isfinite().all()  # the device is well


def test_the_stream_is_the_current_one_at_each_call():
    """Of set_stream, of another thread, and of backward, which PyTorch queues where forward was."""
    given = [t.requires_grad_() for t in tensors(900, torch.bfloat16)]
    want = longstride.attention(*given, "fixed:64,16")
    d_o = torch.randn_like(want)
    gradients = torch.autograd.grad(want, given, d_o)
    torch.cuda.synchronize()

    def late_attention():
        late = torch.zeros_like(given[0])
        torch.cuda._sleep(2_000_000)
        late.copy_(given[0].detach())
        late.requires_grad_()
        o = longstride.attention(late, *given[1:], "fixed:64,16")
        return o, torch.autograd.grad(o, (late, *given[1:]), d_o)

    def on_a_stream(stream):
        with torch.cuda.stream(stream):
            return [late_attention() for _ in range(3)]

    results, before = [], torch.cuda.current_stream()
    for stream in (torch.cuda.Stream(), before, torch.cuda.Stream()):
        torch.cuda.set_stream(stream)
        results.append(late_attention())
    torch.cuda.set_stream(before)
    with ThreadPoolExecutor(3) as threads:
        for made in threads.map(on_a_stream, [torch.cuda.Stream() for _ in range(3)]):
            results += made
    torch.cuda.synchronize()
    for o, made in results:
        assert torch.equal(o, want)
        for a, b in zip(made, gradients):
            assert torch.equal(a, b)


@pytest.mark.parametrize("which", [1, 2, 4, 5])
def test_gradients_of_some_and_none(which):
    everything = [t.requires_grad_() for t in tensors(70, torch.bfloat16)]
    o = longstride.attention(*everything, "fixed:16,4")
    expected = torch.autograd.grad(o.sum(), everything)
    given = [t.detach().requires_grad_(bool(which >> i & 1)) for i, t in enumerate(everything)]
    longstride.attention(*given, "fixed:16,4").sum().backward()
    for tensor, gradient in zip(given, expected):
        assert tensor.grad is None if not tensor.requires_grad else torch.equal(tensor.grad, gradient)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            quiet = longstride.attention(*everything, "fixed:16,4")
            assert torch.equal(quiet, o) and not quiet.requires_grad


def test_another_gpu_is_left_as_it_was():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    q, k, v = (t.to("cuda:1") for t in tensors(70, torch.bfloat16))
    o = longstride.attention(q, k, v, "fixed:16,4")
    assert torch.cuda.current_device() == 0 and o.device.index == 1
    longstride.attention(q, k, v, "fixed:16,4")
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(o.double().cpu(), on_cpu(by_definition, q, k, v, "fixed:16,4")[0], atol=4e-2, rtol=2e-2)
