// A step that is taken twice from the same state (train.verify_every). One machine computes the same bits again, so a
// difference is a fault of a GPU, a core or memory, which no curve would show.
#pragma once

#include <cstdint>
#include <functional>

#include "longstride/dist/comm.h"
#include "longstride/ops/update.h"
#include "longstride/run/config.h"
#include "longstride/train/optimizer.h"

namespace longstride {

// Whether step number `step`, from 1, is to be taken twice.
bool is_verified(const TrainConfig& train, int64_t step);

// Calls `take`, which takes the step number `step` and waits for it, goes back to the state before, and calls it again.
// Returns what came of the second. Compares weights, moments and averages of this rank, the loss and the norm of the
// gradients, bit for bit. All ranks call it; if the two differ on one, it throws Error on all, with this rank's state as it was
// before.
UpdateControl take_twice(Optimizer& optimizer, Comm& comm, int64_t step,
                         const std::function<UpdateControl()>& take);

// Bytes of the CPU's memory that this takes of the rank that needs most.
int64_t bytes_to_take_twice(const RunConfig& config, int ranks);

}  // namespace longstride
