"""longstride.attention against its definition, for numpy and PyTorch on the CPU."""

import math

import numpy as np
import pytest

import longstride

torch = pytest.importorskip("torch")

PATTERNS = ["dense", "fixed:8,2", "strided:6", "window:5|stride:4", "summary:8,2"]


def tensors(n=37, heads=2, width=8, value_width=5, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda d: torch.randn(2, heads, n, d, generator=generator).to(dtype)
    return draw(width), draw(width), draw(value_width)


def by_definition(q, k, v, pattern, scale=None):
    """In the type of the arguments; a query that may look at nothing gets 0."""
    n, heads = q.shape[2], q.shape[1]
    pattern = longstride.Pattern(pattern, heads=heads)
    mask = torch.stack([torch.from_numpy(pattern.to_dense(n, head)) for head in range(heads)])
    scores = (q @ k.transpose(2, 3)) * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1).nan_to_num(0)
    return weights @ v, torch.logsumexp(scores.masked_fill(~mask, float("-inf")), -1)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("n", [1, 37])
def test_numpy_and_torch_are_what_the_definition_says(pattern, n):
    q, k, v = tensors(n)
    expected, expected_lse = by_definition(q.double(), k.double(), v.double(), pattern)
    o, lse = longstride.attention(q, k, v, pattern, return_lse=True)
    torch.testing.assert_close(o.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-5, rtol=0)
    of_numpy = longstride.attention(q.numpy(), k.numpy(), v.numpy(), pattern)
    np.testing.assert_array_equal(of_numpy, o.numpy())
    rows = longstride.attention(*(t.transpose(1, 2) for t in (q, k, v)), pattern, layout="bnhd")
    assert torch.equal(rows.transpose(1, 2), o)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients_are_those_of_the_definition(pattern):
    given = [t.requires_grad_() for t in tensors()]
    exact = [t.detach().double().requires_grad_() for t in given]
    d_o = torch.randn(2, 2, 37, 5, generator=torch.Generator().manual_seed(1))
    o, lse = longstride.attention(*given, pattern, return_lse=True)
    o.backward(d_o)
    # Rows without a key have a softmax of nothing there, whose gradient is no number; they give none here.
    dense, _ = by_definition(*exact, pattern)
    gradients = torch.autograd.grad(dense, exact, d_o.double())
    for tensor, gradient in zip(given, gradients):
        seen = ~gradient.isnan()
        torch.testing.assert_close(tensor.grad.double()[seen], gradient[seen], atol=2e-5, rtol=0)
    assert not lse.requires_grad
    of_numpy = longstride.attention_backward(
        *(t.detach().numpy() for t in given), o.detach().numpy(), lse.numpy(), d_o.numpy(), pattern
    )
    for tensor, gradient in zip(given, of_numpy):
        np.testing.assert_array_equal(gradient, tensor.grad.numpy())


def test_gradcheck():
    given = [t.requires_grad_() for t in tensors(n=9, width=4, value_width=3)]
    attend = lambda q, k, v: longstride.attention(q, k, v, "fixed:4,1")
    assert torch.autograd.gradcheck(attend, given, eps=1e-2, atol=1e-2, rtol=1e-2, nondet_tol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype):
    given = [t.requires_grad_() for t in tensors(dtype=dtype)]
    o = longstride.attention(*given, "fixed:8,2")
    expected, _ = by_definition(*(t.detach().double() for t in given), "fixed:8,2")
    assert o.dtype == dtype
    torch.testing.assert_close(o.double(), expected, atol=0.03, rtol=0.03)
    o.sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.isfinite().all() for t in given)


def test_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert longstride.attention(*tensors(), "fixed:8,2").dtype == torch.bfloat16


def test_operator_registration():
    q, k, v = (t.transpose(1, 2).contiguous().requires_grad_() for t in tensors(n=9))
    torch.library.opcheck(torch.ops.longstride.attention.default, (q, k, v, "fixed:4,1", 0.5))


def test_compiles_without_a_break_in_the_graph():
    def layer(q, k, v):
        return longstride.attention(q * 2, k, v, "fixed:8,2").relu().sum()

    plain = [t.requires_grad_() for t in tensors()]
    layer(*plain).backward()
    compiled = [t.detach().requires_grad_() for t in plain]
    torch.compile(layer, fullgraph=True, backend="aot_eager")(*compiled).backward()
    for a, b in zip(plain, compiled):
        torch.testing.assert_close(a.grad, b.grad)


def test_scale_and_slices():
    q, k, v = tensors()
    expected, _ = by_definition(q.double(), k.double(), v.double(), "dense", 0.7)
    torch.testing.assert_close(longstride.attention(q, k, v, "dense", scale=0.7).double(), expected, atol=1e-5, rtol=0)
    wide = torch.randn(2, 37, 3, 2, 8)
    q, k, v = (wide[:, :, i].transpose(1, 2) for i in range(3))
    assert torch.equal(
        longstride.attention(q, k, v, "fixed:8,2"),
        longstride.attention(q.contiguous(), k.contiguous(), v.contiguous(), "fixed:8,2"),
    )
    read_only = np.broadcast_to(np.ones((1, 1, 1, 8), np.float32), (2, 2, 9, 8))
    np.testing.assert_allclose(longstride.attention(read_only, read_only, read_only, "dense"), 1)


def test_pattern():
    pattern = longstride.Pattern("strided:4")
    mask = pattern.to_dense(11)
    assert mask.dtype == bool and mask.sum() == pattern.pairs(11)
    assert all(mask[q, k] == pattern.allows(q, k) for q in range(11) for k in range(11))
    assert repr(pattern) == "Pattern('strided:4')" and str(pattern) == "strided:4"
    assert pattern == longstride.Pattern("strided:4") and len({pattern, longstride.Pattern("strided:4")}) == 1
    assert longstride.Pattern("window:2|stride:3").heads == 2


def test_block_mask():
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = tensors(n=128, width=16, value_width=16)
    mask = longstride.Pattern("fixed:8,2", heads=2).to_block_mask(128)
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=mask), longstride.attention(q, k, v, "fixed:8,2"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_refusals(as_numpy):
    given = tensors()
    if as_numpy:
        given = [t.numpy() for t in given]
    q, k, v = given

    def refused(message, *arrays, **options):
        with pytest.raises(longstride.Error, match=message):
            longstride.attention(*arrays, **options)

    refused(r"did you mean 'fixed'[^^]*\n  fixd:8\n  \^\^\^\^", q, k, v, pattern="fixd:8")
    refused("2 layers", q, k, v, pattern="dense,window:4")
    refused("cannot share 3 patterns", q, k, v, pattern="dense|dense|window:4")
    refused("layout 'nbhd'", q, k, v, layout="nbhd")
    refused("k is f32", q, k[:, :, :, :4], v, pattern="dense")
    refused("v is f32", q, k, v[:, :, :9], pattern="dense")
    refused("q has 3 axes", q[0], k, v)
    refused("scale", q, k, v, scale=-1.0)
    with pytest.raises(ValueError):
        longstride.Pattern("nonsense")
    wrong = q.astype(np.float64) if as_numpy else q.double()
    refused("float32, bfloat16 or float16", wrong, wrong, wrong)


def test_errors_are_those_of_python_too():
    q, k, v = tensors()
    with pytest.raises(RuntimeError, match="k is a tensor on meta, must be on cpu, as q") as raised:
        longstride.attention(q, k.to("meta"), v)
    assert isinstance(raised.value, longstride.Error)
    with pytest.raises(TypeError, match="k is a ndarray, q a Tensor"):
        longstride.attention(q, k.numpy(), v)
    with pytest.raises(TypeError, match="v is a list"):
        longstride.attention(q, k, [1])
    with pytest.raises(TypeError, match="k: its elements must be float32, bfloat16 or float16, they are torch.int64"):
        longstride.attention(q, k.long(), v)
    with pytest.raises(TypeError, match="k has elements of torch.bfloat16, q of torch.float32"):
        longstride.attention(q, k.bfloat16(), v)


def test_tensors_of_a_device_that_the_build_has_no_backend_for():
    from types import SimpleNamespace

    from longstride import _torch

    q = SimpleNamespace(device=torch.device("cuda", 63))
    with pytest.raises(longstride.WrongDevice, match="tensors on cuda:63: .*cuda") as raised:
        _torch._plan_for(q, "dense", 9, 2)
    assert isinstance(raised.value, RuntimeError) and str(raised.value).count("\n") == 0
    with pytest.raises(longstride.Error, match="fixd") as raised:
        _torch._plan_for(q, "fixd:8", 9, 2)
    assert not isinstance(raised.value, RuntimeError)
