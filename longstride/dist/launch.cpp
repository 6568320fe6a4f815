#include "longstride/dist/launch.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "longstride/base/check.h"
#include "longstride/base/text.h"

namespace longstride {

namespace {

struct Variables {
  Launcher launcher;
  const char *rank, *size;
};
constexpr std::array kVariables{
    Variables{Launcher::open_mpi, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
    Variables{Launcher::pmi, "PMI_RANK", "PMI_SIZE"},
    Variables{Launcher::torchrun, "RANK", "WORLD_SIZE"},
    // Of srun's steps alone: SLURM_NTASKS is there in a batch script too, which runs once.
    Variables{Launcher::slurm, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
};

int number_of(const char* text, const char* name) {
  constexpr int64_t kMost = 1'000'000;  // ranks, ports, seconds
  const std::string what = std::string("the environment's ") + name;
  const int64_t number = parse_integer(text, what);
  LONGSTRIDE_CHECK(number >= -kMost && number <= kMost, "{} = {} is too large", what, text);
  return static_cast<int>(number);
}

}  // namespace

const char* name_of(Launcher launcher) {
  switch (launcher) {
    case Launcher::none:
      return "nobody";
    case Launcher::open_mpi:
    case Launcher::pmi:
      return "mpirun";
    case Launcher::slurm:
      return "srun";
    case Launcher::torchrun:
      return "torchrun";
  }
  return "";
}

Launch launch_of_environment() {
  for (const Variables& names : kVariables) {
    const char *rank = std::getenv(names.rank), *size = std::getenv(names.size);
    if (rank == nullptr || size == nullptr) continue;
    const Launch launch{names.launcher, number_of(rank, names.rank), number_of(size, names.size)};
    LONGSTRIDE_CHECK(launch.rank >= 0 && launch.rank < launch.size,
                     "the environment's {} = {} is no rank of {} = {}", names.rank, rank, names.size, size);
    return launch;
  }
  return {};
}

Meeting meeting_of_environment() {
  Meeting meeting;
  if (const char* host = std::getenv("MASTER_ADDR")) meeting.host = host;
  if (const char* port = std::getenv("MASTER_PORT")) meeting.port = number_of(port, "MASTER_PORT");
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  if (agent != nullptr && std::string(agent) == "True") ++meeting.port;
  LONGSTRIDE_CHECK(meeting.port > 0 && meeting.port < 65536, "the environment's MASTER_PORT = {} is no port",
                   meeting.port);
  if (const char* seconds = std::getenv("LONGSTRIDE_JOIN_SECONDS"))
    meeting.patience_ms = 1000 * number_of(seconds, "LONGSTRIDE_JOIN_SECONDS");
  return meeting;
}

}  // namespace longstride
