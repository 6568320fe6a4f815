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


def _plan_for(q, pattern, stream=0):
    if q.device.type == "cpu":
        return planned(pattern, q.shape[1], q.shape[2], "cpu")
    try:
        return planned(pattern, q.shape[1], q.shape[2], f"{q.device.type}:{q.device.index or 0}", stream)
    except Error as error:
        planned(pattern, 1, q.shape[2], "cpu")  # is it the pattern?
        raise WrongDevice(f"tensors on {q.device}: {error}") from None


_TYPE_NUMBERS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _described(tensors, lse):
    """As the GPU calls of the module take q, k, v, o and lse."""
    return (
        (*[tensor.data_ptr() for tensor in tensors], lse.data_ptr()),
        _TYPE_NUMBERS[tensors[0].dtype],
        [tensor.shape for tensor in tensors],
        [tensor.stride() for tensor in tensors],
    )


def _forward_into(q, k, v, o, lse, pattern, scale):
    if q.device.type != "cuda":
        return _plan_for(q, pattern).forward(q, k, v, o, lse, scale)
    # Queued on PyTorch's own stream, as every other operator: what is freed here is not reused before its turn.
    stream = torch.cuda.current_stream(q.device).cuda_stream
    with torch.cuda.device(q.device):
        _plan_for(q, pattern, stream).forward_on(stream, *_described((q, k, v, o), lse), scale)


def _backward_into(q, k, v, o, lse, d_o, gradients, pattern, scale):
    if q.device.type != "cuda":
        return _plan_for(q, pattern).backward(q, k, v, o, lse, d_o, *gradients, scale)
    stream = torch.cuda.current_stream(q.device).cuda_stream
    with torch.cuda.device(q.device):
        plan = _plan_for(q, pattern, stream)
        scratch = torch.empty(plan.scratch_bytes(q.shape, v.shape), dtype=torch.uint8, device=q.device)
        outer = (d_o, *gradients)
        plan.backward_on(
            stream,
            *_described((q, k, v, o), lse),
            scale,
            tuple(tensor.data_ptr() for tensor in outer),
            [tensor.stride() for tensor in outer],
            scratch.data_ptr(),
            scratch.numel(),
        )


# (batch, positions, heads, width) in and out.
@torch.library.custom_op("longstride::attention", mutates_args=())
def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: str, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = _computes(q)
    o = torch.empty((*q.shape[:3], v.shape[3]), dtype=dtype, device=q.device)
    lse = torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32, device=q.device)
    _forward_into(_ready(q, dtype), _ready(k, dtype), _ready(v, dtype), o, lse, pattern, scale)
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
    dtype = _computes(q)
    given = [_ready(tensor, dtype) for tensor in (q, k, v, o)]
    gradients = [torch.empty(tensor.shape, dtype=dtype, device=q.device) for tensor in (q, k, v)]
    _backward_into(*given, lse.contiguous(), _ready(d_o, dtype), gradients, pattern, scale)
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


def attention(q, k, v, pattern, scale, layout, return_lse):
    check_types((torch.float32, torch.bfloat16, torch.float16), q=q, k=k, v=v)
    for name, tensor in (("k", k), ("v", v)):
        if tensor.device != q.device:
            raise WrongDevice(f"{name} is a tensor on {tensor.device}, must be on {q.device}, as q")
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (tensor.to(torch.get_autocast_dtype(q.device.type)) for tensor in (q, k, v))
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise WrongType(f"{name} has elements of {tensor.dtype}, q of {q.dtype}; give one type")
    if layout == "bhnd":
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    o, lse = _attention(q, k, v, pattern, scale_of(scale, q.shape[3]))
    if layout == "bhnd":
        o = o.transpose(1, 2)
    return (o, lse) if return_lse else o


def block_mask(pattern, positions, device):
    """The dense masks of all heads as a BlockMask of FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask

    masks = torch.stack([torch.from_numpy(pattern.to_dense(positions, head)) for head in range(pattern.heads)]).to(device)
    return create_block_mask(
        lambda batch, head, query, key: masks[head, query, key], None, pattern.heads, positions, positions, device=device
    )
