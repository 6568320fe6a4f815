#include "longstride/dist/comm.h"

#include "longstride/base/check.h"
#include "longstride/dist/launch.h"

namespace longstride {

namespace {

class Alone : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void sum(const Tensor&) override {}
  void broadcast(void*, int64_t) override {}
  std::vector<std::string> gather(std::string_view mine) override { return {std::string(mine)}; }
};

}  // namespace

std::unique_ptr<Comm> alone() { return std::make_unique<Alone>(); }

Comm& no_others() {
  static Alone comm;
  return comm;
}

std::unique_ptr<Comm> join_ranks() {
  const Launch launch = launch_of_environment();
  if (launch.size <= 1) return alone();
  LONGSTRIDE_CHECK(launch.launcher != Launcher::torchrun,
                   "torchrun started {} processes; longstride joins those of mpirun or srun so far",
                   launch.size);
  LONGSTRIDE_CHECK(
      has_mpi(),
      "{} started {} processes, but this longstride was built without MPI; install a package such "
      "as libopenmpi-dev and build again",
      name_of(launch.launcher), launch.size);
  return join_mpi(launch);
}

void agree(Comm& comm, std::string_view error) {
  const std::vector<std::string> errors = comm.gather(error);
  for (size_t rank = 0; rank < errors.size(); ++rank)
    if (!errors[rank].empty())
      fail("{}{}", comm.size() > 1 ? fmt::format("rank {}: ", rank) : "", errors[rank]);
}

}  // namespace longstride
