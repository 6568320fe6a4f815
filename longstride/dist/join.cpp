// Joining the ranks that a launcher started, for the program. The library does without: whoever links it need
// not have MPI.
#include <cstdlib>

#include "longstride/base/check.h"
#include "longstride/dist/comm.h"
#include "longstride/dist/launch.h"

namespace longstride {

std::unique_ptr<Comm> join_ranks() {
  const Launch launch = launch_of_environment();
  if (launch.size <= 1) return alone();
  // srun joins ranks by MPI unless it is told where they meet.
  if (launch.launcher == Launcher::torchrun ||
      (launch.launcher == Launcher::slurm && std::getenv("MASTER_ADDR") != nullptr))
    return join_tcp(launch, meeting_of_environment());
  LONGSTRIDE_CHECK(
      has_mpi(),
      "{} started {} processes, but this longstride was built without MPI; install a package such "
      "as libopenmpi-dev and build again",
      name_of(launch.launcher), launch.size);
  return join_mpi(launch);
}

}  // namespace longstride
