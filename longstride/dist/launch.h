// Which launcher started this process, and as one of how many.
#pragma once

#include <memory>
#include <string>

#include "longstride/dist/comm.h"

namespace longstride {

enum class Launcher { none, open_mpi, pmi, slurm, torchrun };
const char* name_of(Launcher launcher);  // "mpirun", "srun", ..

struct Launch {
  Launcher launcher = Launcher::none;
  int rank = 0, size = 1;
};

// By the variables that launchers set: OMPI_COMM_WORLD_RANK and _SIZE of Open MPI, PMI_RANK and PMI_SIZE of
// MPICH and others, SLURM_PROCID and SLURM_STEP_NUM_TASKS, RANK and WORLD_SIZE of torchrun. The first pair that is
// there counts: mpirun may itself run under Slurm. Throws Error naming variables that are no such numbers.
Launch launch_of_environment();

// Where ranks that are joined by sockets meet rank 0.
struct Meeting {
  std::string host = "127.0.0.1";
  int port = 29500;
  int patience_ms = 60'000;  // how long they wait for each other
};

// MASTER_ADDR and MASTER_PORT; LONGSTRIDE_JOIN_SECONDS for the patience. Where torchrun itself listens at that
// port, the next one. Throws Error naming a variable that makes no sense.
Meeting meeting_of_environment();

// Throws Error that says which rank did not come, that the port is taken, or that rank 0 does not answer.
// Later calls throw Error that names the rank which is gone.
std::unique_ptr<Comm> join_tcp(const Launch& launch, const Meeting& meeting);

// mpi.cpp, or no_mpi.cpp in a build without MPI.
bool has_mpi();
// Throws Error where MPI does not find as many ranks as were started.
std::unique_ptr<Comm> join_mpi(const Launch& launch);

}  // namespace longstride
