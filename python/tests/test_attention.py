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
    from longstride import _torch

    device = torch.device("cuda", 63)
    with pytest.raises(longstride.WrongDevice, match="tensors on cuda:63: .*cuda") as raised:
        _torch._plan_for(device, "dense", 9, 2)
    assert isinstance(raised.value, RuntimeError) and str(raised.value).count("\n") == 0
    with pytest.raises(longstride.Error, match="fixd") as raised:
        _torch._plan_for(device, "fixd:8", 9, 2)
    assert not isinstance(raised.value, RuntimeError)


# ---- calls of plain tensors go past the operator, and all that must see it still does ----


@pytest.fixture
def operator_calls(monkeypatch):
    """How often the operator was called."""
    from longstride import _torch

    called, operator = [], _torch._attention

    def counted(*arguments):
        called.append(1)
        return operator(*arguments)

    monkeypatch.setattr(_torch, "_attention", counted)
    return called


@pytest.mark.parametrize("layout", ["bhnd", "bnhd"])
@pytest.mark.parametrize("pattern", ["dense", "window:5|stride:4"])
def test_plain_calls_and_the_operator_are_the_same_bits(layout, pattern, operator_calls):
    plain = [t.requires_grad_() for t in tensors()]
    given = plain if layout == "bhnd" else [t.transpose(1, 2) for t in plain]
    o, lse = longstride.attention(*given, pattern, layout=layout, return_lse=True)
    assert not operator_calls and o.requires_grad and not lse.requires_grad
    rows = [t.detach().transpose(1, 2).requires_grad_() for t in plain]
    other, other_lse = torch.ops.longstride.attention(*rows, pattern, 1 / math.sqrt(8))
    assert torch.equal(o, other.transpose(1, 2) if layout == "bhnd" else other) and torch.equal(lse, other_lse)
    (o * o).sum().backward()
    (other * other).sum().backward()
    for a, b in zip(plain, rows):
        assert torch.equal(a.grad, b.grad.transpose(1, 2))


@pytest.mark.parametrize("which", range(1, 8))
def test_gradients_of_some_of_q_k_and_v(which):
    everything = [t.requires_grad_() for t in tensors()]
    expected = torch.autograd.grad(longstride.attention(*everything, "fixed:8,2").sum(), everything)
    given = [t.detach().requires_grad_(bool(which >> i & 1)) for i, t in enumerate(everything)]
    longstride.attention(*given, "fixed:8,2").sum().backward()
    for tensor, gradient in zip(given, expected):
        assert tensor.grad is None if not tensor.requires_grad else torch.equal(tensor.grad, gradient)


def test_calls_without_gradients():
    q, k, v = (torch.nn.Parameter(t) for t in tensors())
    o = longstride.attention(q, k, v, "fixed:8,2")
    assert o.requires_grad and type(o) is torch.Tensor
    with torch.no_grad():
        assert torch.equal(longstride.attention(q, k, v, "fixed:8,2"), o)
        assert not longstride.attention(q, k, v, "fixed:8,2").requires_grad
    with torch.inference_mode():
        inferred, lse = longstride.attention(q, k, v, "fixed:8,2", return_lse=True)
        assert torch.equal(inferred, o) and inferred.is_inference()
        assert torch.equal(longstride.attention(inferred, inferred, inferred, "dense").isnan().any(), torch.tensor(False))
    plain = longstride.attention(q.detach(), k.detach(), v.detach(), "fixed:8,2")
    assert torch.equal(plain, o) and not plain.requires_grad


def test_any_strides():
    """Also such as longstride does not take, and axes of one place, whose strides mean nothing."""
    q, k, v = tensors(value_width=8)
    expected = longstride.attention(q, k, v, "fixed:8,2")
    across = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)]  # neighbours in the last axis are apart
    shared = q[:1, :1].expand(2, 2, 37, 8)
    for given in ((across[0], k, v), (q, across[1], v), (q, k, across[2]), across):
        given = [t.detach().requires_grad_() for t in given]
        o = longstride.attention(*given, "fixed:8,2")
        assert torch.equal(o, expected)
        o.backward(torch.ones(()).expand(o.shape))
        assert all(t.grad.isfinite().all() for t in given)
    assert torch.equal(
        longstride.attention(shared, shared, shared, "dense"), longstride.attention(*[shared.contiguous()] * 3, "dense")
    )
    one = torch.randn(1, 1, 9, 1)
    odd = [one.as_strided(one.shape, stride) for stride in ((0, 0, 1, 7), (0, 0, 1, 0), (5, 3, 1, 9))]
    assert torch.equal(longstride.attention(*odd, "dense"), longstride.attention(one, one, one, "dense"))
    negative = torch._neg_view(q)
    assert torch.equal(longstride.attention(negative, k, v, "dense"), longstride.attention(-q, k, v, "dense"))


def test_what_is_the_same_but_for_one_thing():
    """Calls that differ in one of what a prepared call depends on."""
    q, k, v = tensors()
    for _ in range(2):
        for scale in (None, 0.1, 1, torch.tensor(0.3)):
            expected, _ = by_definition(q.double(), k.double(), v.double(), "dense", None if scale is None else float(scale))
            torch.testing.assert_close(longstride.attention(q, k, v, "dense", scale=scale).double(), expected, atol=1e-5, rtol=0)
        for pattern in ("window:3", longstride.Pattern("window:4"), "window:3|window:4"):
            expected, _ = by_definition(q.double(), k.double(), v.double(), str(pattern))
            torch.testing.assert_close(longstride.attention(q, k, v, pattern).double(), expected, atol=1e-5, rtol=0)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            assert longstride.attention(*(t.to(dtype) for t in (q, k, v)), "dense").dtype == dtype
        with pytest.raises(longstride.WrongType, match="v has elements of torch.bfloat16, q of torch.float32"):
            longstride.attention(q, k, v.bfloat16(), "dense")


def test_no_second_derivative():
    given = [t.requires_grad_() for t in tensors()]
    first = torch.autograd.grad((longstride.attention(*given, "dense") ** 2).sum(), given, create_graph=True)
    total = sum(gradient.sum() for gradient in first)
    for differentiate in (lambda: torch.autograd.grad(total, given), total.backward):
        with pytest.raises(RuntimeError, match="attention_backward.*no autograd formula"):
            differentiate()


def test_what_must_see_the_operator_does(operator_calls):
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._python_dispatch import TorchDispatchMode

    q, k, v = tensors()
    attend = lambda q, k, v: longstride.attention(q, k, v, "dense")
    seen = []

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            seen.append(str(function))
            return function(*arguments, **(named or {}))

    with Looking():
        attend(q, k, v)
    assert "longstride.attention.default" in seen
    assert "longstride.attention" in make_fx(attend)(q, k, v).code
    assert attend(*(t.to("meta") for t in (q, k, v))).shape == v.shape
    assert len(operator_calls) == 3

    class Named(torch.Tensor):
        pass

    attend(q.as_subclass(Named), k, v)
    assert len(operator_calls) == 4
    with torch.autograd.forward_ad.dual_level():
        attend(torch.autograd.forward_ad.make_dual(q, q), k, v)
    assert len(operator_calls) == 5
    with pytest.raises(RuntimeError, match="setup_context"):  # PyTorch's word for operators of Python
        torch.func.grad(lambda q: attend(q, k, v).sum())(q)
    assert len(operator_calls) == 6


def test_transforms_are_what_they_are_of_the_operator():
    q, k, v = (torch.stack([t, t * 2]) for t in tensors())
    mapped = torch.func.vmap(lambda q, k, v: longstride.attention(q, k, v, "dense"))(q, k, v)
    for i in range(2):
        assert torch.equal(mapped[i], longstride.attention(q[i], k[i], v[i], "dense"))


def test_tensors_that_were_kept_elsewhere_meanwhile():
    """Hooks of saved tensors may give them back with other strides."""
    plain = [t.requires_grad_() for t in tensors()]
    attend = lambda given: (longstride.attention(*given, "fixed:8,2") ** 2).sum()
    expected = torch.autograd.grad(attend(plain), plain)
    apart = lambda t: torch.empty(*t.shape, 2)[..., 0].copy_(t) if t.ndim == 4 else t
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: apart(t)):
        loss = attend(plain)
    for a, b in zip(torch.autograd.grad(loss, plain), expected):
        torch.testing.assert_close(a, b)
    other = torch.utils.checkpoint.checkpoint(lambda *given: attend(given), *plain, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(other, plain), expected):
        assert torch.equal(a, b)


def test_autocast_of_gradients():
    given = [t.requires_grad_() for t in tensors()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = longstride.attention(given[0], given[1].detach().bfloat16(), given[2], "dense")
        assert o.dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert longstride.attention(*given, "dense").dtype == torch.float32
        with pytest.raises(longstride.WrongType, match="torch.int64"):
            longstride.attention(given[0].long(), given[1], given[2], "dense")
    o.sum().backward()
    assert given[0].grad.dtype == torch.float32 and given[1].grad is None


def test_threads():
    from concurrent.futures import ThreadPoolExecutor

    given = [tensors(n=20 + n, seed=n) for n in range(8)]
    expected = [longstride.attention(*each, "fixed:8,2") for each in given]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            made = threads.map(lambda each: longstride.attention(*each, "fixed:8,2"), given)
            assert all(torch.equal(a, b) for a, b in zip(made, expected))


def test_compiled_gradients_and_plain_ones_in_one_program():
    """torch.compile may come before the first plain call, between them and after."""
    given = [t.requires_grad_() for t in tensors()]
    attend = lambda q, k, v: longstride.attention(q, k, v, longstride.Pattern("dense"), return_lse=True)[0].square().sum()
    compiled = torch.compile(lambda q, k, v: longstride.attention(q, k, v, "dense").square().sum(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(attend(*given), given)
    for _ in range(2):
        for a, b in zip(torch.autograd.grad(compiled(*given), given), expected):
            torch.testing.assert_close(a, b)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        loss = longstride.attention(*given, "dense").square().sum()
        for tensor in given:
            tensor.grad = None
        loss.backward()
    for tensor, gradient in zip(given, expected):
        torch.testing.assert_close(tensor.grad, gradient)
