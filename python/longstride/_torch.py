"""Attention as an operator of PyTorch: gradients, torch.compile, autocast."""

import contextlib
import functools
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from . import _longstride
from ._attention import check_arrays, check_layout, check_types, scale_of
from ._errors import Error, WrongDevice, WrongType
from ._pattern import planned

# ---- calls ----

_is_compiling = torch.compiler.is_compiling
_TYPE_NUMBERS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# The current stream and device as numbers. The public ways to them make objects, in several times the time.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", lambda index: torch.cuda.current_stream(index).cuda_stream)
_current_device = getattr(torch._C, "_cuda_getDevice", torch.cuda.current_device)


class _Call(NamedTuple):
    """What is known of a call before the memory is, for all calls that are alike."""

    call: _longstride.Call
    forward: object  # call.forward
    copies: int  # bits of q, k and v: it must be contiguous
    o_shape: tuple
    o_stride: tuple
    lse_shape: tuple
    lse_stride: tuple
    gradient_strides: tuple
    scratch_bytes: int


def _plan_for(device, pattern, positions, heads, stream=0):
    if device.type == "cpu":
        return planned(pattern, positions, heads, "cpu")
    try:
        return planned(pattern, positions, heads, f"{device.type}:{device.index or 0}", stream)
    except Error as error:
        planned(pattern, 1, heads, "cpu")  # is it the pattern?
        raise WrongDevice(f"tensors on {device}: {error}") from None


# The arguments are all that a call depends on, so what was checked here is not looked at again. One for each stream, as plans.
@functools.lru_cache(maxsize=64)
def _prepared(stream, pattern, scale, bhnd, qs, ks, vs, q_stride, k_stride, v_stride, qt, kt, vt, q_on, k_on, v_on):
    """A _Call for these shapes, strides, types and devices; None if longstride does not compute with them as they are."""
    if not (len(qs) == len(ks) == len(vs) == 4 and qt == kt == vt and qt in _TYPE_NUMBERS and q_on == k_on == v_on):
        return None
    if not (q_on.type == "cuda" or q_on.type == "cpu" and qt != torch.float16):
        return None
    batch, heads, positions = qs[:3] if bhnd else (qs[0], qs[2], qs[1])
    with torch.cuda.device(q_on) if q_on.type == "cuda" else contextlib.nullcontext():  # which a plan makes the current one
        plan = _plan_for(q_on, pattern, positions, heads, stream)
    scale = scale_of(scale, qs[3])
    call = _longstride.Call(
        plan, q_on.type == "cuda", bhnd, _TYPE_NUMBERS[qt], (qs, ks, vs), (q_stride, k_stride, v_stride), scale
    )
    return _Call(
        call,
        call.forward,
        call.copies(),
        tuple(call.o_shape()),
        tuple(call.o_stride()),
        (batch, heads, positions),
        (heads * positions, positions, 1),
        tuple(map(tuple, call.gradient_stride())),
        call.scratch_bytes(),
    )


def _contiguous(copies, *tensors):
    return [tensor.contiguous() if copies >> i & 1 else tensor for i, tensor in enumerate(tensors)]


def _prepared_for(q, k, v, pattern, scale, bhnd):
    """The _Call or None, and PyTorch's current stream, on which work is queued as that of every other operator: what is
    freed here is not reused before its turn."""
    device = q.device
    stream = _raw_stream(device.index) if q.is_cuda else 0
    return _prepared(
        stream, pattern, scale, bhnd,
        q.shape, k.shape, v.shape, q.stride(), k.stride(), v.stride(),
        q.dtype, k.dtype, v.dtype, device, k.device, v.device,
    ), stream  # fmt: skip


def _forward(q, k, v, prepared, stream):
    _, forward, copies, o_shape, o_stride, lse_shape, lse_stride, _, _ = prepared
    if copies:
        q, k, v = _contiguous(copies, q, k, v)
    o = q.new_empty_strided(o_shape, o_stride)
    lse = q.new_empty_strided(lse_shape, lse_stride, dtype=torch.float32)
    if q.is_cuda and _current_device() != q.get_device():
        with torch.cuda.device(q.device):
            forward(stream, q.data_ptr(), k.data_ptr(), v.data_ptr(), o.data_ptr(), lse.data_ptr())
    else:
        forward(stream, q.data_ptr(), k.data_ptr(), v.data_ptr(), o.data_ptr(), lse.data_ptr())
    return o, lse


def _backward(q, k, v, o, lse, d_o, prepared, stream):
    call, _, copies, o_shape, o_stride, _, _, gradient_strides, scratch_bytes = prepared
    if copies:
        q, k, v = _contiguous(copies, q, k, v)
    # Both are as forward() left them, unless somebody kept them in another place meanwhile.
    if o.stride() != o_stride:
        o = o.new_empty_strided(o_shape, o_stride).copy_(o)
    lse = lse.contiguous()
    d_o_stride = d_o.stride()
    if d_o_stride != o_stride and not call.takes(d_o_stride):
        d_o = d_o.contiguous()
        d_o_stride = d_o.stride()
    dq, dk, dv = [x.new_empty_strided(x.shape, stride) for x, stride in zip((q, k, v), gradient_strides)]
    scratch = q.new_empty((scratch_bytes,), dtype=torch.uint8) if scratch_bytes else None
    arguments = (
        stream, q.data_ptr(), k.data_ptr(), v.data_ptr(), o.data_ptr(), lse.data_ptr(), d_o_stride,
        (d_o.data_ptr(), dq.data_ptr(), dk.data_ptr(), dv.data_ptr()),
        0 if scratch is None else scratch.data_ptr(), scratch_bytes,
    )  # fmt: skip
    if q.is_cuda and _current_device() != q.get_device():
        with torch.cuda.device(q.device):
            call.backward(*arguments)
    else:
        call.backward(*arguments)
    return dq, dk, dv


# ---- the operator ----


def _computes(tensor):
    """The type that longstride computes in, for what the device lacks."""
    return torch.float32 if tensor.dtype == torch.float16 and tensor.device.type == "cpu" else tensor.dtype


def _converted(dtype, *tensors):
    return [tensor.detach().to(dtype) for tensor in tensors]


def _prepared_or_refused(q, k, v, pattern, scale):
    prepared, stream = _prepared_for(q, k, v, pattern, scale, False)
    if prepared is None:
        _check(q, k, v)
        _check_one_type(q, k, v)
        _plan_for(q.device, pattern, q.shape[1], q.shape[2])
        raise WrongDevice(f"tensors on {q.device}: longstride computes on a CPU or a GPU of NVIDIA's")
    return prepared, stream


# (batch, positions, heads, width) in and out.
@torch.library.custom_op("longstride::attention", mutates_args=())
def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: str, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = q.dtype
    q, k, v = _converted(_computes(q), q, k, v)
    o, lse = _forward(q, k, v, *_prepared_or_refused(q, k, v, pattern, scale))
    return o.to(dtype), lse


@_attention.register_fake
def _(q, k, v, pattern, scale):
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)


@torch.library.custom_op("longstride::attention_backward", mutates_args=())
def _attention_backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    d_o: torch.Tensor,
    pattern: str,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = q.dtype
    q, k, v, o, d_o = _converted(_computes(q), q, k, v, o, d_o)
    gradients = _backward(q, k, v, o, lse, d_o, *_prepared_or_refused(q, k, v, pattern, scale))
    return tuple(gradient.to(dtype) for gradient in gradients)


@_attention_backward.register_fake
def _(q, k, v, o, lse, d_o, pattern, scale):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (q, k, v))


def _keep(ctx, inputs, output):
    q, k, v, ctx.pattern, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _operator_backward(ctx, d_o, d_lse):
    gradients = _attention_backward(*ctx.saved_tensors, d_o, ctx.pattern, ctx.scale)
    return (*gradients, None, None)


_attention.register_autograd(_operator_backward, setup_context=_keep)


# ---- without the operator: the same in a fraction of its time, for plain tensors that nobody else looks at ----

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_is_grad_enabled = torch.is_grad_enabled
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_transform = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: 1)
_jit_trace = torch._C._get_tracing_state
_any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def _unwatched(q, k, v):
    """Nobody has to see the operator: neither torch.compile nor torch.jit.trace, a dispatch mode, a transform of functions,
    forward-mode differentiation or a subclass. torch.compile looks at nothing after the first line."""
    return (
        not _is_compiling()
        and type(q) in _PLAIN
        and type(k) in _PLAIN
        and type(v) in _PLAIN
        and _dispatch_modes() == 0
        and _transform() is None
        and _jit_trace() is None
        and forward_ad._current_level < 0
        and not (q.is_neg() or k.is_neg() or v.is_neg())  # PyTorch has put off the minus
    )


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, prepared, stream, return_lse, call):
        o, lse = _forward(q, k, v, prepared, stream)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.call = call
        if not return_lse:
            return o
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)
        return o, lse

    @staticmethod
    def backward(ctx, d_o, d_lse=None):
        if d_o is None:
            return (None,) * 7
        q, k, v, o, lse = ctx.saved_tensors
        pattern, scale, bhnd = ctx.call
        # With create_graph the gradient is enabled here; of the second derivative the operator says that there is none.
        if _is_grad_enabled() or not (_unwatched(q, k, v) and _unwatched(o, lse, d_o)):
            q, k, v, o, d_o = (_turned(tensor, bhnd) for tensor in (q, k, v, o, d_o))
            gradients = _attention_backward(q, k, v, o, lse, d_o, pattern, scale_of(scale, q.shape[3]))
            gradients = [_turned(gradient, bhnd) for gradient in gradients]
        else:
            if d_o.dtype != q.dtype:
                d_o = d_o.to(q.dtype)
            # Hooks of saved tensors may have given back others than were saved, so what is known of the call is looked up anew.
            gradients = _backward(q, k, v, o, lse, d_o, *_prepared_for(q, k, v, pattern, scale, bhnd))
        return (*gradients, None, None, None, None)


def _turned(tensor, bhnd):
    return tensor.transpose(1, 2) if bhnd else tensor


def _check(q, k, v):
    check_arrays(q=q, k=k, v=v)
    for name, tensor in (("k", k), ("v", v)):
        if tensor.device != q.device:
            raise WrongDevice(f"{name} is a tensor on {tensor.device}, must be on {q.device}, as q")
    check_types((torch.float32, torch.bfloat16, torch.float16), q=q, k=k, v=v)


def _check_one_type(q, k, v):
    if not q.dtype == k.dtype == v.dtype:
        name, tensor = ("k", k) if k.dtype != q.dtype else ("v", v)
        raise WrongType(f"{name} has elements of {tensor.dtype}, q of {q.dtype}; give one type")


def attention(q, k, v, pattern, scale, layout, return_lse):
    bhnd = layout == "bhnd"
    if not (bhnd or layout == "bnhd"):
        check_layout(layout)
    if type(pattern) is not str:
        pattern = str(pattern)
    if scale is not None and type(scale) is not float:
        scale = float(scale)
    if _is_compiling() or _any_autocast():
        _check(q, k, v)
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (tensor.to(torch.get_autocast_dtype(q.device.type)) for tensor in (q, k, v))
    if _unwatched(q, k, v):
        prepared, stream = _prepared_for(q, k, v, pattern, scale, bhnd)
        if prepared is not None:
            if _is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
                return _Eager.apply(q, k, v, prepared, stream, return_lse, (pattern, scale, bhnd))
            o, lse = _forward(q, k, v, prepared, stream)
            return (o, lse) if return_lse else o
    _check(q, k, v)
    _check_one_type(q, k, v)
    o, lse = _attention(*(_turned(tensor, bhnd) for tensor in (q, k, v)), pattern, scale_of(scale, q.shape[3]))
    o = _turned(o, bhnd)
    return (o, lse) if return_lse else o


def block_mask(pattern, positions, device):
    """The dense masks of all heads as a BlockMask of FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask

    masks = torch.stack([torch.from_numpy(pattern.to_dense(positions, head)) for head in range(pattern.heads)]).to(device)
    return create_block_mask(
        lambda batch, head, query, key: masks[head, query, key], None, pattern.heads, positions, positions, device=device
    )
