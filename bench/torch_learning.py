"""What a plain PyTorch script learns: dense attention, bf16 autocast, torch.compile, rotary positions, normalised queries and keys,
Muon for the blocks' matrices and AdamW for the rest, linear decay. The peer of `longstride train` in bits at equal time, and the
place to try an ingredient at equal steps before it is built.

    python3 bench/torch_learning.py text.bin --train-bytes 64000000 --steps 900 [--convolution AC] [--value-residual learned] ...

Prints a JSON line: validation bits of the 400,000 bytes behind the training bytes, disjoint windows; milliseconds a step (compilation
and the first steps apart); training bits, each the mean of 100 steps. With --test-from N also the bits of the bytes from N on.
"""
import argparse
import json
import math
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

JORDAN = [(3.4445, -4.775, 2.0315)] * 5
# Amsel and others, 2025, arXiv 2505.16932, with the safety factor of 1.01.
POLAR = [(8.2051, -22.9019, 16.4607), (4.0664, -2.8612, 0.5184), (3.9096, -2.8234, 0.5250), (3.2856, -2.4153, 0.4853)]


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("data")
    p.add_argument("--name", default="base")
    p.add_argument("--train-bytes", type=int, default=64_000_000)
    p.add_argument("--test-from", type=int, default=0)
    p.add_argument("--steps", type=int, default=900)
    p.add_argument("--minutes", type=float, default=0, help="train for so long instead, the rates following the clock")
    p.add_argument("--batch", type=int, default=24)
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--layers", type=int, default=30)
    p.add_argument("--width", type=int, default=512)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--rate", type=float, default=3e-3, help="of AdamW")
    p.add_argument("--muon-rate", type=float, default=0.02)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--warmup", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--activation", choices=["gelu", "relu2"], default="gelu")
    p.add_argument("--newton-schulz", choices=["jordan", "polar"], default="jordan")
    p.add_argument("--convolution", default="", help="depthwise causal, of 4: A before the queries, keys and values, C before the feed-forward")
    p.add_argument("--value-residual", choices=["none", "fixed", "learned"], default="none", help="values mixed with the first block's")
    p.add_argument("--bigrams", action="store_true", help="a table of embeddings of pairs of bytes")
    p.add_argument("--hashed", type=int, default=0, help="rows of hashed tables of three bytes")
    p.add_argument("--hashed-four", action="store_true", help="and of four")
    p.add_argument("--zero-branches", action="store_true", help="branches begin with matrices of zero")
    return p.parse_args()


def standard_deviation(fan_in):
    return math.sqrt(0.125 / fan_in)


def linear(columns, rows, scale=1.0):
    layer = nn.Linear(columns, rows)
    nn.init.normal_(layer.weight, std=standard_deviation(columns) * scale)
    nn.init.zeros_(layer.bias)
    return layer


class Convolution(nn.Module):
    """y_t = x_t + sum of w_j x_(t-j), j = 0 to 3, a weight a channel, all zero at first."""

    def __init__(self, width):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, width))

    def forward(self, x):
        y = x + x * self.w[0].to(x.dtype)
        for j in (1, 2, 3):
            y = y + F.pad(x, (0, 0, j, 0))[:, :-j] * self.w[j].to(x.dtype)
        return y


class Block(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a, d = a, a.width
        out = 0.0 if a.zero_branches else 1 / math.sqrt(2 * a.layers)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.projection = linear(d, 3 * d), linear(d, d, out)
        self.up, self.down = linear(d, 4 * d), linear(4 * d, d, out)
        self.before_attention = Convolution(d) if "A" in a.convolution else nn.Identity()
        self.before_feed_forward = Convolution(d) if "C" in a.convolution else nn.Identity()
        if a.value_residual == "learned":
            self.shares = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, x, cosines, sines, first_value):
        a, (rows, n, d) = self.a, x.shape
        head = d // a.heads
        q, k, v = self.qkv(self.before_attention(self.norm1(x))).split(d, -1)
        if a.value_residual != "none" and first_value is None:
            first_value = v
        elif a.value_residual == "fixed":
            v = 0.5 * v + 0.5 * first_value
        elif a.value_residual == "learned":
            v = self.shares[0].to(v.dtype) * v + self.shares[1].to(v.dtype) * first_value
        q, k, v = (t.view(rows, n, a.heads, head).transpose(1, 2) for t in (q, k, v))

        def turned(t):
            left, right = F.rms_norm(t, (head,)).float().chunk(2, -1)
            return torch.cat([left * cosines + right * sines, right * cosines - left * sines], -1).to(v.dtype)

        attended = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).reshape(rows, n, d))
        h = self.up(self.before_feed_forward(self.norm2(x)))
        h = F.relu(h).square() if a.activation == "relu2" else h * torch.sigmoid(1.702 * h)
        return x + self.down(h), first_value


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a, d = a, a.width
        self.token = nn.Embedding(256, d)
        nn.init.normal_(self.token.weight, std=standard_deviation(d))
        self.start = nn.Parameter(torch.randn(d) * standard_deviation(d))
        tables = ([65536] if a.bigrams else []) + ([a.hashed] * (2 if a.hashed_four else 1) if a.hashed else [])
        self.tables = nn.ModuleList(nn.Embedding(rows, d) for rows in tables)
        for table in self.tables:
            nn.init.zeros_(table.weight)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 256, bias=False)
        nn.init.zeros_(self.head.weight)
        half = torch.arange(0, d // a.heads, 2).float() / (d // a.heads)
        angles = torch.arange(a.context).float()[:, None] * (10000 ** -half)[None]
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, y):
        a = self.a
        x = torch.cat([self.start.expand(y.shape[0], 1, a.width), self.token(y[:, :-1])], 1)
        before = [F.pad(y, (j, 0))[:, :-j] for j in (1, 2, 3, 4)]  # the last byte, the one before it, ...
        grams = []
        if a.bigrams:
            grams.append(before[1] * 256 + before[0])
        if a.hashed:
            three = before[2] * 65536 + before[1] * 256 + before[0]
            grams.append((three * 2654435761 >> 8) % a.hashed)
            if a.hashed_four:
                grams.append(((before[3] * 16777216 + three) * 2654435761 >> 8) % a.hashed)
        for table, gram in zip(self.tables, grams):
            x = x + table(gram)
        first_value = None
        for block in self.blocks:
            x, first_value = block(x, self.cosines, self.sines, first_value)
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), y.flatten())


@torch.compile
def newton_schulz(x, kind):
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in JORDAN if kind == "jordan" else POLAR:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    def __init__(self, matrices, a):
        super().__init__(matrices, dict(lr=a.muon_rate))
        self.a = a

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            of_shape = {}
            for w in group["params"]:
                of_shape.setdefault(w.shape, []).append(w)
            for shape, weights in of_shape.items():
                state, g = self.state[weights[0]], torch.stack([w.grad for w in weights])
                momentum = state.setdefault("momentum", torch.zeros_like(g))
                momentum.lerp_(g, 0.05)
                x = g.lerp(momentum, 0.95).bfloat16()
                tall = shape[0] > shape[1]
                x = newton_schulz(x.mT if tall else x, self.a.newton_schulz)
                x = (x.mT if tall else x).to(weights[0].dtype)
                torch._foreach_mul_(weights, 1 - group["lr"] * self.a.weight_decay)
                torch._foreach_add_(weights, list(x.unbind(0)), alpha=-group["lr"] * max(1, shape[0] / shape[1]) ** 0.5)


def optimizers(model, a):
    matrices = [w for n, w in model.named_parameters() if n.startswith("blocks") and w.ndim == 2 and w.shape[0] > 4]
    tables = list(model.tables.parameters())
    others = {id(w) for w in matrices + tables}
    rest = [w for w in model.parameters() if id(w) not in others]
    groups = [dict(params=rest)] + ([dict(params=tables, weight_decay=0.0)] if tables else [])
    return [Muon(matrices, a), torch.optim.AdamW(groups, lr=a.rate, betas=(0.9, 0.95), weight_decay=a.weight_decay, fused=True)]


def bits_of(run, part, a):
    total = count = 0
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        for i in range(0, len(part) - a.batch * a.context + 1, a.batch * a.context):
            total += run(part[i : i + a.batch * a.context].view(a.batch, a.context).long()).item()
            count += 1
    return round(total / count / math.log(2), 4)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    data = torch.frombuffer(bytearray(open(a.data, "rb").read()), dtype=torch.uint8).cuda()
    model = Model(a).cuda()
    movers = optimizers(model, a)
    peaks = [[group["lr"] for group in mover.param_groups] for mover in movers]
    run, windows, losses, curve, began = torch.compile(model), torch.Generator().manual_seed(5), [], [], 0.0
    done = step = 0
    while done < 1:
        part = min(1, (step + 1) / a.warmup) * (1 - done)
        for mover, of_mover in zip(movers, peaks):
            for group, peak in zip(mover.param_groups, of_mover):
                group["lr"] = peak * part
        at = torch.randint(0, a.train_bytes - a.context, (a.batch,), generator=windows)
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(torch.stack([data[i : i + a.context] for i in at]).long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for mover in movers:
            mover.step()
            mover.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        step += 1
        if step == 6:  # everything is compiled
            torch.cuda.synchronize()
            began = time.time()
        if step % 100 == 0:
            curve.append(round(torch.stack(losses).mean().item() / math.log(2), 4))
            losses = []
        if not a.minutes:
            done = step / a.steps
        elif step > 6 and step % 10 == 0:
            torch.cuda.synchronize()
            done = min(1, (time.time() - began) / (60 * a.minutes))
    torch.cuda.synchronize()
    milliseconds = (time.time() - began) / (step - 6) * 1000
    model.eval()
    line = dict(
        name=a.name,
        validation_bits=bits_of(run, data[a.train_bytes : a.train_bytes + 400_000], a),
        steps=step,
        step_ms=round(milliseconds, 1),
        parameters=sum(w.numel() for w in model.parameters()),
        train_bits=curve,
    )
    if a.test_from:
        line["test_bits"] = bits_of(run, data[a.test_from :], a)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
