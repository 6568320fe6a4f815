// Our own launcher: the ranks of one host, started by the program itself.
#pragma once

namespace longstride {

// Starts this program once more with the same arguments for each of `ranks` ranks, with the variables of
// torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) and with its share of this process's
// processors, and waits for all. Where one ends badly the others have ten seconds to end, and are then ended.
// Returns the exit status: rank 0's, or where that is 0 and another ended badly, 1. Throws Error if a process
// cannot be started. A rank that a signal ended is told of on standard error.
int run_ranks(int ranks, char** arguments);

}  // namespace longstride
