// Training on several ranks. Rank 0 leads: it alone reads and writes the run's directory, has a clock, takes
// signals, validates and talks to people. The others follow its orders; they read the data, which have to be
// there for each of them, and give up with rank 0.
#pragma once

#include <string>

#include "longstride/dist/comm.h"
#include "longstride/run/config.h"
#include "longstride/train/trainer.h"

namespace longstride {

// What must be the same on all ranks before they begin.
struct RankIdentity {
  std::string program;  // checksum of the binary
  std::string config;   // as this rank's command line means it
};
// Of this process. `config` as the command line means it, before anything is taken from the data.
RankIdentity identity_of_rank(const RunConfig& config);

// Rank 0. While it lives the others wait for its orders; its end is theirs.
class Leader {
 public:
  explicit Leader(Comm& comm) : comm_(comm) {}
  ~Leader();
  Leader(const Leader&) = delete;
  Leader& operator=(const Leader&) = delete;

  // The others open the data of `config` and make ready to train. Throws Error if one cannot, or if its
  // program, its configuration or its data differ from those here.
  void prepare(const RankIdentity& identity, const RunConfig& config, const Splits& splits);
  // Joins the devices of all ranks. Throws Error if that cannot be.
  void join(Trainer& trainer);
  // Gives the others the weights of `trainer`.
  void share(Trainer& trainer);
  void tell(const StepOrder& order);
  // The others validate with rank 0, if they share its sequences or its averages.
  void validate(const Trainer& trainer, int64_t max_bytes);
  // Before trainer.contents(): the others give what they have of it.
  void collect(Trainer& trainer);
  Comm& comm() { return comm_; }

 private:
  Comm& comm_;
};

// The other ranks: follow until the leader ends. `error` says why this rank has no configuration, or is empty.
// What goes wrong is told by rank 0. `run_directory` gets this rank's log (train/rank_log.h).
void follow(Comm& comm, const RankIdentity& identity, const std::string& error,
            const std::string& run_directory);

}  // namespace longstride
