// Kills training, sampling, compressing and the rest with SIGKILL, again and again, and checks each time that
// nothing is damaged, and that whoever goes on ends with the very bytes of one who was never killed.
//
//   crash_test [KILLS] [SEED] [JOB]      120 kills and seed 1 if not given, of all jobs; LONGSTRIDE_TEST_DEVICE=cuda
//                                        trains on a GPU
//
// Half of the kills come at a random time. The others come at a random operation on a file: before it, after
// it, or in the middle of a write. Of several ranks one is killed, or the program that started them, or all.
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/wait.h>

#include "tests/reliability/job.h"
#include "tests/reliability/tries.h"

namespace longstride::reliability {
namespace {

struct Tally {
  int64_t kills = 0, by_time = 0, by_operation = 0, ends = 0;
};

class Crash {
 public:
  Crash(Workshop& shop, const Job& job, uint64_t seed) : shop_(shop), job_(job), random_(seed) {
    shop_.restore();
    old_ = shop_.worth(job_);
    std::vector<Operation> log;
    const Ended ended = shop_.begin(job_, {}, &log);
    if (ended.code != 0) give_up("it fails undisturbed: " + ended.err);
    seconds_ = ended.seconds;
    // Each process counts its own.
    for (const Operation& operation : log) operations_ = std::max(operations_, operation.number);
    new_ = shop_.worth(job_);
    shop_.restore();
  }

  // One kill, and what must hold after it. Every third or so goes on to the end.
  void once(Tally& tally) {
    Disturbance how;
    if (below(2) == 0) {
      how.kill_after = 1 + below(static_cast<int64_t>(seconds_ * 1.1e6));
      if (job_.processes > 1) how.victim = static_cast<int>(below(job_.processes + 2)) - 1;
    } else {
      static const char* kKinds[] = {"kill-before", "kill-after", "kill-half"};
      how.at = 1 + below(operations_);
      how.kind = kKinds[below(3)];
    }
    last_ = how.at > 0 ? fmt::format("{} operation {}", how.kind, how.at)
                       : fmt::format("killed after {} us", how.kill_after);
    const Ended ended = shop_.go_on(job_, how);
    // The program names a rank that was killed.
    const bool of_ranks =
        job_.processes > 1 && ended.code > 0 && ended.err.find("was ended by signal 9") != std::string::npos;
    if (ended.signal == SIGKILL || of_ranks) {
      ++tally.kills;
      ++(how.at > 0 ? tally.by_operation : tally.by_time);
    } else if (ended.code != 0) {
      give_up("it fails where it should go on: " + ended.err);
    }
    const std::string damage = shop_.damage(job_, old_, new_);
    if (!damage.empty()) give_up(damage);
    if (ended.code == 0 || below(3) == 0) finish(tally);
  }

  const std::string& last() const { return last_; }

 private:
  void finish(Tally& tally) {
    const Ended ended = shop_.go_on(job_);
    if (ended.code != 0) give_up("it cannot go on: " + ended.err);
    const auto shown = [&](Worth worth) {
      return job_.processes > 1 ? without_older_checkpoints(std::move(worth)) : worth;
    };
    expect_same(shown(new_), shown(shop_.worth(job_)));
    for (const std::string& name : shop_.temporaries()) give_up(name + " is left over");
    ++tally.ends;
    shop_.restore();
  }

  int64_t below(int64_t limit) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(std::max<int64_t>(1, limit)));
  }

  Workshop& shop_;
  const Job& job_;
  std::mt19937_64 random_;
  Worth old_, new_;
  double seconds_ = 0;
  int64_t operations_ = 0;
  std::string last_;
};

int run(int64_t kills, uint64_t seed, const std::string& only) {
  std::string folder = (std::filesystem::temp_directory_path() / "longstride-crash-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) give_up("cannot create " + folder);
  Workshop shop(folder);
  std::vector<Job> jobs = shop.jobs();
  // A GPU has one rank, and there may be one GPU.
  if (std::getenv("LONGSTRIDE_TEST_DEVICE") == nullptr)
    jobs.insert(jobs.end(), shop.rank_jobs().begin(), shop.rank_jobs().end());
  if (!only.empty()) std::erase_if(jobs, [&](const Job& job) { return job.name != only; });
  if (jobs.empty()) give_up("no such job: " + only);
  int64_t total = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    const int64_t share = share_of(i, jobs.size(), kills);
    Tally tally;
    Crash crash(shop, job, seed + 1000 * i);
    try {
      while (tally.kills < share) crash.once(tally);
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}: kill {} ({}): {}\nseed {}; the files are in {}\n", job.name, tally.kills,
                 crash.last(), error.what(), seed, shop.work());
      return 1;
    }
    fmt::print("{:<16} {:>6} kills ({} by time, {} by operation), {} ends, each the same\n", job.name,
               tally.kills, tally.by_time, tally.by_operation, tally.ends);
    std::fflush(stdout);
    total += tally.kills;
  }
  std::filesystem::remove_all(folder);
  fmt::print("{} kills, nothing lost\n", total);
  return 0;
}

}  // namespace
}  // namespace longstride::reliability

int main(int count, char** arguments) {
  using namespace longstride::reliability;
  const std::string only = count > 3 ? arguments[3] : "";
  return run_tries(count, arguments, "crash_test [KILLS] [SEED] [JOB]", 3,
                   [&](int64_t kills, uint64_t seed) { return run(kills, seed, only); });
}
