"""Attention as an operator of PyTorch: gradients, torch.compile, autocast."""

import torch

from ._attention import check_types, scale_of
from ._errors import Error, WrongDevice, WrongType
from ._pattern import planned


def _computes(tensor):
    """The type that longstride computes in, for what the device lacks."""
    return torch.float32 if tensor.dtype == torch.float16 and tensor.device.type == "cpu" else tensor.dtype


def _ready(tensor, dtype):
    tensor = tensor.detach().to(dtype)
    if tensor.stride(3) != 1 or any(stride <= 0 for stride in tensor.stride()):
        tensor = tensor.contiguous()
    return tensor


def _plan_for(q, pattern, positions, heads, stream=0):
    if q.device.type == "cpu":
        return planned(pattern, positions, heads, "cpu")
    try:
        return planned(pattern, positions, heads, f"{q.device.type}:{q.device.index or 0}", stream)
    except Error as error:
        planned(pattern, 1, heads, "cpu")  # is it the pattern?
        raise WrongDevice(f"tensors on {q.device}: {error}") from None


# ---- on a GPU ----

_TYPE_NUMBERS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _rows(numbers, bhnd):
    """A shape or strides in the order (batch, positions, heads, width)."""
    return (numbers[0], numbers[2], numbers[1], numbers[3]) if bhnd else numbers


def _suits(strides):
    return strides[3] == 1 and strides[0] > 0 and strides[1] > 0 and strides[2] > 0


def _dense_rows(shape, width, like, bhnd):
    """An empty tensor of this shape and another width, (batch, positions, heads, width) in memory."""
    batch, positions, heads, _ = _rows(shape, bhnd)
    strides = (positions * heads * width, heads * width, width, 1)
    return torch.empty_strided((*shape[:3], width), _rows(strides, bhnd), dtype=like.dtype, device=like.device)


class _on_device:
    """PyTorch's current device is the tensor's meanwhile. Costs nothing where it is anyway."""

    def __init__(self, tensor):
        index = tensor.device.index
        self.guard = None if torch.cuda.current_device() == index else torch.cuda.device(index)

    def __enter__(self):
        if self.guard is not None:
            self.guard.__enter__()

    def __exit__(self, *error):
        if self.guard is not None:
            self.guard.__exit__(*error)


def _described(tensors, lse, bhnd):
    """As the module's calls for a GPU take q, k, v, o and lse."""
    return (
        (*[tensor.data_ptr() for tensor in tensors], lse.data_ptr()),
        _TYPE_NUMBERS[tensors[0].dtype],
        [_rows(tensor.shape, bhnd) for tensor in tensors],
        [_rows(tensor.stride(), bhnd) for tensor in tensors],
    )


def _gpu_plan(q, pattern, bhnd):
    """And the stream of PyTorch's, on which work is queued as that of every other operator: what is freed here is not
    reused before its turn."""
    stream = torch.cuda.current_stream(q.device).cuda_stream
    _, positions, heads, _ = _rows(q.shape, bhnd)
    return _plan_for(q, pattern, positions, heads, stream), stream


def _gpu_forward(q, k, v, pattern, scale, bhnd):
    q, k, v = (tensor if _suits(tensor.stride()) else tensor.contiguous() for tensor in (q, k, v))
    batch, positions, heads, _ = _rows(q.shape, bhnd)
    o = _dense_rows(q.shape, v.shape[3], q, bhnd)
    lse = torch.empty((batch, heads, positions), dtype=torch.float32, device=q.device)
    with _on_device(q):
        plan, stream = _gpu_plan(q, pattern, bhnd)
        plan.forward_on(stream, *_described((q, k, v, o), lse, bhnd), scale)
    return o, lse


def _gpu_backward(q, k, v, o, lse, d_o, pattern, scale, bhnd):
    q, k, v, o, d_o = (tensor if _suits(tensor.stride()) else tensor.contiguous() for tensor in (q, k, v, o, d_o))
    gradients = [_dense_rows(tensor.shape, tensor.shape[3], tensor, bhnd) for tensor in (q, k, v)]
    outer = (d_o, *gradients)
    with _on_device(q):
        plan, stream = _gpu_plan(q, pattern, bhnd)
        needed = plan.scratch_bytes(_TYPE_NUMBERS[q.dtype], _rows(q.shape, bhnd), _rows(v.shape, bhnd))
        scratch = torch.empty(needed, dtype=torch.uint8, device=q.device)
        plan.backward_on(
            stream,
            *_described((q, k, v, o), lse.contiguous(), bhnd),
            scale,
            tuple(tensor.data_ptr() for tensor in outer),
            [_rows(tensor.stride(), bhnd) for tensor in outer],
            scratch.data_ptr(),
            scratch.numel(),
        )
    return gradients


class _Eager(torch.autograd.Function):
    """What the operator below does, in a third of its time, for plain tensors outside torch.compile."""

    @staticmethod
    def forward(ctx, q, k, v, pattern, scale, bhnd):
        o, lse = _gpu_forward(q, k, v, pattern, scale, bhnd)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.call = (pattern, scale, bhnd)
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)
        return o, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_o, d_lse):
        if d_o is None:
            return (None,) * 6
        q, k, v, o, lse = ctx.saved_tensors
        return (*_gpu_backward(q, k, v, o, lse, d_o.to(q.dtype), *ctx.call), None, None, None)


_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
_transform = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _plain(*tensors):
    """Nobody has to see the operator: neither torch.compile nor a dispatch mode, a transform of functions or a subclass."""
    return (
        _dispatch_modes is not None
        and _transform is not None
        and all(type(tensor) in _PLAIN for tensor in tensors)
        and not torch.compiler.is_compiling()
        and _dispatch_modes() == 0
        and _transform() is None
    )


# ---- the operator ----


# (batch, positions, heads, width) in and out.
@torch.library.custom_op("longstride::attention", mutates_args=())
def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: str, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if q.device.type == "cuda":
        return _gpu_forward(q.detach(), k.detach(), v.detach(), pattern, scale, False)
    dtype = _computes(q)
    o = torch.empty((*q.shape[:3], v.shape[3]), dtype=dtype, device=q.device)
    lse = torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32, device=q.device)
    plan = _plan_for(q, pattern, q.shape[1], q.shape[2])
    plan.forward(_ready(q, dtype), _ready(k, dtype), _ready(v, dtype), o, lse, scale)
    return o.to(q.dtype), lse


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
    if q.device.type == "cuda":
        return tuple(_gpu_backward(q, k, v, o, lse, d_o, pattern, scale, False))
    dtype = _computes(q)
    given = [_ready(tensor, dtype) for tensor in (q, k, v, o)]
    gradients = [torch.empty(tensor.shape, dtype=dtype, device=q.device) for tensor in (q, k, v)]
    plan = _plan_for(q, pattern, q.shape[1], q.shape[2])
    plan.backward(*given, lse.contiguous(), _ready(d_o, dtype), *gradients, scale)
    return tuple(gradient.to(q.dtype) for gradient in gradients)


@_attention_backward.register_fake
def _(q, k, v, o, lse, d_o, pattern, scale):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (q, k, v))


def _keep(ctx, inputs, output):
    q, k, v, ctx.pattern, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, d_o, d_lse):
    gradients = _attention_backward(*ctx.saved_tensors, d_o, ctx.pattern, ctx.scale)
    return (*gradients, None, None)


_attention.register_autograd(_backward, setup_context=_keep)


def _check(q, k, v):
    for name, tensor in (("k", k), ("v", v)):
        if tensor.device != q.device:
            raise WrongDevice(f"{name} is a tensor on {tensor.device}, must be on {q.device}, as q")
    check_types((torch.float32, torch.bfloat16, torch.float16), q=q, k=k, v=v)


def attention(q, k, v, pattern, scale, layout, return_lse):
    _check(q, k, v)
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (tensor.to(torch.get_autocast_dtype(q.device.type)) for tensor in (q, k, v))
    if not q.dtype == k.dtype == v.dtype:
        name, tensor = ("k", k) if k.dtype != q.dtype else ("v", v)
        raise WrongType(f"{name} has elements of {tensor.dtype}, q of {q.dtype}; give one type")
    scale = scale_of(scale, q.shape[3])
    bhnd = layout == "bhnd"
    if q.is_cuda and _plain(q, k, v):
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            o, lse = _Eager.apply(q, k, v, pattern, scale, bhnd)
        else:
            o, lse = _gpu_forward(q, k, v, pattern, scale, bhnd)
        return (o, lse) if return_lse else o
    if bhnd:
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    o, lse = _attention(q, k, v, pattern, scale)
    if bhnd:
        o = o.transpose(1, 2)
    return (o, lse) if return_lse else o


def block_mask(pattern, positions, device):
    """The dense masks of all heads as a BlockMask of FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask

    masks = torch.stack([torch.from_numpy(pattern.to_dense(positions, head)) for head in range(pattern.heads)]).to(device)
    return create_block_mask(
        lambda batch, head, query, key: masks[head, query, key], None, pattern.heads, positions, positions, device=device
    )
