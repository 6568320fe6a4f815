// Kills training, sampling, compressing and the rest with SIGKILL, again and again, and checks each time that
// nothing is damaged, and that whoever goes on ends with the very bytes of one who was never killed.
//
//   crash_test [KILLS] [SEED]      120 kills and seed 1 if not given; LONGSTRIDE_TEST_DEVICE=cuda trains on a GPU
//
// Half of the kills come at a random time. The others come at a random operation on a file: before it, after
// it, or in the middle of a write.
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/wait.h>

#include "tests/reliability/job.h"

namespace longstride::reliability {
namespace {

using Worth = std::map<std::string, std::string>;

struct Tally {
  int64_t kills = 0, by_time = 0, by_operation = 0, ends = 0;
};

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error(what); }

void expect_same(const Worth& expected, const Worth& seen) {
  for (const auto& [name, content] : expected) {
    const auto found = seen.find(name);
    if (found == seen.end()) give_up(name + " is missing");
    if (found->second != content) give_up(name + " differs from that of an undisturbed run");
  }
  for (const auto& [name, content] : seen)
    if (!expected.contains(name)) give_up(name + " is one too many");
}

class Crash {
 public:
  Crash(Workshop& shop, const Job& job, uint64_t seed) : shop_(shop), job_(job), random_(seed) {
    shop_.restore();
    old_ = shop_.worth(job_);
    std::vector<Operation> log;
    const Ended ended = shop_.begin(job_, {}, &log);
    if (ended.code != 0) give_up("it fails undisturbed: " + ended.err);
    seconds_ = ended.seconds;
    operations_ = static_cast<int64_t>(log.size());
    new_ = shop_.worth(job_);
    shop_.restore();
  }

  // One kill, and what must hold after it. Every third or so goes on to the end.
  void once(Tally& tally) {
    Disturbance how;
    if (below(2) == 0) {
      how.kill_after = 1 + below(static_cast<int64_t>(seconds_ * 1.1e6));
    } else {
      static const char* kKinds[] = {"kill-before", "kill-after", "kill-half"};
      how.at = 1 + below(operations_);
      how.kind = kKinds[below(3)];
    }
    last_ = how.at > 0 ? fmt::format("{} operation {}", how.kind, how.at)
                       : fmt::format("killed after {} us", how.kill_after);
    const Ended ended = shop_.go_on(job_, how);
    if (ended.signal == SIGKILL) {
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
    expect_same(new_, shop_.worth(job_));
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

int run(int64_t kills, uint64_t seed) {
  std::string folder = (std::filesystem::temp_directory_path() / "longstride-crash-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) give_up("cannot create " + folder);
  Workshop shop(folder);
  int64_t total = 0;
  for (size_t i = 0; i < shop.jobs().size(); ++i) {
    const Job& job = shop.jobs()[i];
    // Training has most to lose.
    const int64_t weights = static_cast<int64_t>(shop.jobs().size()) + 6, weight = i < 3 ? 3 : 1;
    const int64_t share = std::max<int64_t>(1, (kills * weight + weights - 1) / weights);
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
  const auto number = [&](int place, int64_t otherwise) {
    return count > place ? std::strtoll(arguments[place], nullptr, 10) : otherwise;
  };
  const int64_t kills = number(1, 120), seed = number(2, 1);
  if (count > 3 || kills < 1 || seed < 0) {
    fmt::print(stderr, "usage: crash_test [KILLS] [SEED]\n");
    return 2;
  }
  try {
    return longstride::reliability::run(kills, static_cast<uint64_t>(seed));
  } catch (const std::exception& error) {
    fmt::print(stderr, "crash_test: {}\n", error.what());
    return 1;
  }
}
