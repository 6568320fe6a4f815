"""What a plain PyTorch script learns: dense attention, bf16 autocast, torch.compile, rotary positions, normalised queries and keys,
Muon for the blocks' matrices and AdamW for the rest, linear decay. The peer of `longstride train` in bits at equal time, and the
place to try an ingredient at equal steps before it is built.

    python3 bench/torch_learning.py text.bin --train-bytes 64000000 --steps 900 [--convolution AC] [--value-residual learned] ...

With --model gated-deltanet or mamba2 the blocks have these layers of flash-linear-attention in attention's place (bench/torch_linear.py). Muon takes
matrices with 32 rows and columns or more, AdamW the rest.

Prints a JSON line: validation bits of the 400,000 bytes behind the training bytes, disjoint windows, and last a shorter one with what is left; milliseconds
a step (compilation and the first steps apart); training bits, each the mean of 100 steps. With --test-from N also the bits of the bytes from N on.
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
    p.add_argument("--context-schedule", default="", help="shorter contexts first, in as many more rows: '1024 until 0.1; 3072 until 0.7'")
    p.add_argument("--test-context", type=int, default=0, help="of validation and test, [that of training]")
    p.add_argument("--layers", type=int, default=30)
    p.add_argument("--width", type=int, default=512)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--model", choices=["transformer", "gated-deltanet", "mamba2"], default="transformer")
    p.add_argument("--head-dim", type=int, default=0, help="of gated-deltanet's queries and keys [width / heads]; of mamba2 [64]")
    p.add_argument("--expand", type=float, default=0, help="gated-deltanet's values to its keys [1]; mamba2's inner width to the width [2]")
    p.add_argument("--state", type=int, default=128, help="of mamba2")
    p.add_argument("--scan", choices=["mamba-ssm", "simple-gla"], default="mamba-ssm", help="mamba2's kernels: mamba-ssm's, or flash-linear-attention's")
    p.add_argument("--no-feed-forward", action="store_true", help="blocks of mamba2 or gated-deltanet alone")
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
    p.add_argument("--device", default="cuda")
    a = p.parse_args()
    if a.model == "transformer" and a.no_feed_forward or a.model != "transformer" and (a.value_residual != "none" or "A" in a.convolution):
        p.error("--value-residual and --convolution A are for the transformer, --no-feed-forward is for the others")
    a.contexts = [(a.context, 1.0)]
    for stage in reversed(a.context_schedule.split(";") if a.context_schedule else []):
        context, _, until = stage.partition("until")
        a.contexts.insert(0, (int(context), float(until)))
    if any(a.batch * a.context % context for context, _ in a.contexts):
        p.error("each context of --context-schedule has to divide batch * context")
    a.test_context = a.test_context or a.context
    return a


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
        self.norm1 = nn.LayerNorm(d)
        if a.model == "transformer":
            self.qkv, self.projection = linear(d, 3 * d), linear(d, d, out)
        else:
            import torch_linear

            self.mixer = torch_linear.mixer(a, out)
        if not a.no_feed_forward:
            self.norm2, self.up, self.down = nn.LayerNorm(d), linear(d, 4 * d), linear(4 * d, d, out)
        self.before_attention = Convolution(d) if "A" in a.convolution else nn.Identity()
        self.before_feed_forward = Convolution(d) if "C" in a.convolution else nn.Identity()
        if a.value_residual == "learned":
            self.shares = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, x, cosines, sines, first_value):
        if self.a.model == "transformer":
            mixed, first_value = self.attended(x, cosines, sines, first_value)
        else:
            mixed = self.mixer(self.normalised(x))
        return self.fed(x, mixed), first_value

    def normalised(self, x):
        return self.norm1(x).to(torch.get_autocast_dtype(x.device.type))

    def fed(self, x, mixed):
        x, a = x + mixed, self.a
        if a.no_feed_forward:
            return x
        h = self.up(self.before_feed_forward(self.norm2(x)))
        h = F.relu(h).square() if a.activation == "relu2" else h * torch.sigmoid(1.702 * h)
        return x + self.down(h)

    def attended(self, x, cosines, sines, first_value):
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
        return self.projection(attended.transpose(1, 2).reshape(rows, n, d)), first_value


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
        angles = torch.arange(max(a.test_context, a.context)).float()[:, None] * (10000 ** -half)[None]
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def compiled(self):
        """The whole; of models whose mixers launch their own kernels the parts between those."""
        if self.a.model == "transformer":
            return torch.compile(self, dynamic=False)
        for block in self.blocks:
            block.normalised, block.fed = torch.compile(block.normalised, dynamic=False), torch.compile(block.fed, dynamic=False)
        self.loss = torch.compile(self.loss, dynamic=False)
        return self

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
            x, first_value = block(x, self.cosines[: y.shape[1]], self.sines[: y.shape[1]], first_value)
        return self.loss(x, y)

    def loss(self, x, y):
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
    matrices = [w for n, w in model.named_parameters() if n.startswith("blocks") and w.ndim == 2 and min(w.shape) >= 32]
    undecayed = list(model.tables.parameters()) + [w for w in model.parameters() if getattr(w, "_no_weight_decay", False)]
    others = {id(w) for w in matrices + undecayed}
    rest = [w for w in model.parameters() if id(w) not in others]
    groups = [dict(params=rest)] + ([dict(params=undecayed, weight_decay=0.0)] if undecayed else [])
    return [Muon(matrices, a), torch.optim.AdamW(groups, lr=a.rate, betas=(0.9, 0.95), weight_decay=a.weight_decay, fused=True)]


def bits_of(run, part, a):
    """Of all bytes of the part: full windows, as many at once as a step has bytes for, then what is left of them."""
    n, total, whole = a.test_context, 0.0, len(part) // a.test_context * a.test_context
    batches = list(part[:whole].view(-1, n).split(max(1, a.batch * a.context // n))) + ([part[whole:][None]] if whole < len(part) else [])
    with torch.no_grad(), torch.autocast(a.device, torch.bfloat16):
        for batch in batches:
            total += run(batch.long()).item() * batch.numel()
    return round(total / len(part) / math.log(2), 4)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64  # of contexts, and of what is left of validation and test
    data = torch.frombuffer(bytearray(open(a.data, "rb").read()), dtype=torch.uint8).to(a.device)
    model = Model(a).to(a.device)
    movers = optimizers(model, a)
    peaks = [[group["lr"] for group in mover.param_groups] for mover in movers]
    run, windows, losses, curve, began = model.compiled(), torch.Generator().manual_seed(5), [], [], 0.0
    wait = torch.cuda.synchronize if a.device.startswith("cuda") else lambda: None

    def loss_of(at, context):
        with torch.autocast(a.device, torch.bfloat16):
            return run(torch.stack([data[i : i + context] for i in at]).long())

    for context, _ in a.contexts if len(a.contexts) > 1 else []:  # each is compiled before the clock begins
        loss_of(range(a.batch * a.context // context), context).backward()
        model.zero_grad(set_to_none=True)
    done = step = 0
    while done < 1:
        part = min(1, (step + 1) / a.warmup) * (1 - done)
        for mover, of_mover in zip(movers, peaks):
            for group, peak in zip(mover.param_groups, of_mover):
                group["lr"] = peak * part
        context = next(context for context, until in a.contexts if done < until)
        loss = loss_of(torch.randint(0, a.train_bytes - context, (a.batch * a.context // context,), generator=windows), context)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for mover in movers:
            mover.step()
            mover.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        step += 1
        if step == 6:  # everything is compiled
            wait()
            began = time.time()
        if step % 100 == 0:
            curve.append(round(torch.stack(losses).mean().item() / math.log(2), 4))
            losses = []
        if not a.minutes:
            done = step / a.steps
        elif step > 6 and step % 10 == 0:
            wait()
            done = min(1, (time.time() - began) / (60 * a.minutes))
    wait()
    milliseconds = (time.time() - began) / (step - 6) * 1000
    model.eval()
    line = dict(
        name=a.name,
        validation_bits=bits_of(run, data[a.train_bytes : a.train_bytes + 400_000], a),
        steps=step,
        step_ms=round(milliseconds, 1),
        step_bytes=a.batch * a.context,
        parameters=sum(w.numel() for w in model.parameters()),
        train_bits=curve,
    )
    if a.test_from:
        line["test_bits"] = bits_of(run, data[a.test_from :], a)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
