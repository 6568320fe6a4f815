#!/usr/bin/env python3
"""The paper's Enwik8 model in training, as a PyTorch user writes it: tokens a second and memory on one GPU.

    python3 bench/torch_gpu.py [--attention dense|flex|block|column|longstride]... [--recompute] [--batch 2] [--json FILE]

30 layers of width 512 with 8 heads over 12,288 bytes, 94.9M parameters, dropout 0.4 where branches join; bf16 autocast,
torch.compile, fused AdamW, clipping by norm. `dense` is cuDNN's causal attention, `flex` FlexAttention with the mask of
fixed:128,32; `block` and `column` are the own block of 128 (by a reshape) and the column of a stride of 128 (by a
transposition), each through cuDNN; `longstride` is longstride.attention with fixed:128,32 in its place. Data is random bytes; the median of the timed steps counts.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

LAYERS, WIDTH, HEADS, CONTEXT, BLOCK, SUMMARY = 30, 512, 8, 12288, 128, 32


def allowed(b, h, q, k):
    return (k <= q) & ((q // BLOCK == k // BLOCK) | (k % BLOCK >= BLOCK - SUMMARY))


class Attention(nn.Module):
    def __init__(self, kind, mask):
        super().__init__()
        self.kind, self.mask = kind, mask
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        batch, n, _ = x.shape
        q, k, v = (t.view(batch, n, HEADS, -1) for t in self.qkv(x).split(WIDTH, dim=2))
        if self.kind == "longstride":
            o = longstride.attention(q, k, v, f"fixed:{BLOCK},{SUMMARY}", layout="bnhd")
        elif self.kind in ("dense", "flex"):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            if self.kind == "flex":
                from torch.nn.attention.flex_attention import flex_attention
                o = flex_attention(q, k, v, block_mask=self.mask)
            else:
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            o = o.transpose(1, 2)
        else:
            rows = n // BLOCK

            def apart(t):  # (B, N, H, D) -> (B * groups, H, length, D)
                t = t.view(batch, rows, BLOCK, HEADS, -1)
                if self.kind == "column":
                    t = t.transpose(1, 2)
                return t.reshape(-1, t.shape[2], HEADS, t.shape[4]).transpose(1, 2)

            o = F.scaled_dot_product_attention(apart(q), apart(k), apart(v), is_causal=True).transpose(1, 2)
            o = o.reshape(batch, *((rows, BLOCK) if self.kind == "block" else (BLOCK, rows)), HEADS, -1)
            if self.kind == "column":
                o = o.transpose(1, 2)
        return self.projection(o.reshape(batch, n, WIDTH))


class Block(nn.Module):
    def __init__(self, kind, mask):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(kind, mask)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        x = x + self.drop(self.attention(self.norm1(x)))
        hidden = self.up(self.norm2(x))
        return x + self.drop(self.down(hidden * torch.sigmoid(1.702 * hidden)))


class Model(nn.Module):
    def __init__(self, kind, mask, recompute):
        super().__init__()
        self.token, self.start = nn.Embedding(256, WIDTH), nn.Parameter(torch.zeros(WIDTH))
        self.rows, self.columns = nn.Embedding(CONTEXT // BLOCK, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.blocks = nn.ModuleList(Block(kind, mask) for _ in range(LAYERS))
        self.norm, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)
        self.recompute = recompute

    def forward(self, tokens):
        position = torch.arange(CONTEXT, device=tokens.device)
        start = self.start.expand(tokens.shape[0], 1, WIDTH)
        x = torch.cat([start, self.token(tokens[:, :-1])], dim=1)
        x = x + self.rows(position // BLOCK) + self.columns(position % BLOCK)
        for block in self.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return F.cross_entropy(self.output(self.norm(x)).float().flatten(0, 1), tokens.flatten())


def measure(kind, batch, recompute, steps):
    torch._dynamo.reset()
    torch.cuda.reset_peak_memory_stats()
    mask = None
    if kind == "flex":
        from torch.nn.attention.flex_attention import create_block_mask
        mask = create_block_mask(allowed, None, None, CONTEXT, CONTEXT, device="cuda", _compile=True)
    model = Model(kind, mask, recompute).cuda()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3.5e-4, fused=True)
    compiled = torch.compile(model)
    times = []
    for step in range(steps + 3):
        tokens = torch.randint(0, 256, (batch, CONTEXT), device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            loss = compiled(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= 3:
            times.append(time.perf_counter() - begin)
    result = {
        "attention": kind, "batch": batch, "recompute": recompute, "parameters": parameters,
        "tokens_per_second": batch * CONTEXT / statistics.median(times),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }
    print(f"PyTorch {torch.__version__}  {kind:8} batch {batch}{'  recompute' if recompute else ''}: "
          f"{result['tokens_per_second']:,.0f} tokens/s, {result['peak_gib']:.1f} GiB", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", action="append", choices=["dense", "flex", "block", "column", "longstride"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if "longstride" in (arguments.attention or []):
        global longstride
        import longstride
    torch.set_float32_matmul_precision("high")
    results = [measure(kind, arguments.batch, arguments.recompute, arguments.steps)
               for kind in arguments.attention or ["dense", "flex"]]
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "runs": results}, file, indent=1)


if __name__ == "__main__":
    main()
