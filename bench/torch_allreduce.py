"""NCCL's own all-reduce of a model's gradients, beside bench_ranks.

    torchrun --nproc-per-node 2 bench/torch_allreduce.py [COUNT]

Prints the median of 20 all-reduces of COUNT f32, and of an all-to-all with an all-gather, which is what a sum in rank order sends.
"""
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist

count = int(sys.argv[1]) if len(sys.argv) > 1 else 94_949_888
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
size = dist.get_world_size()
count = count // size * size
gradients = torch.zeros(count, device="cuda")
parts = torch.empty_like(gradients)


def timed(work):
    times = []
    for i in range(25):
        torch.cuda.synchronize()
        dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if i >= 5:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def exchange():
    dist.all_to_all_single(parts, gradients)
    dist.all_gather_into_tensor(gradients, parts[: count // size])


for name, work in [("all-reduce", lambda: dist.all_reduce(gradients)), ("all-to-all and all-gather", exchange)]:
    seconds = timed(work)
    if rank == 0:
        sent = 2 * (size - 1) / size * count * 4
        print(f"{size} ranks, {name}: {count} gradients in {1e3 * seconds:.3f} ms, {1e-9 * sent / seconds:.0f} GB/s out of each rank")
dist.destroy_process_group()
