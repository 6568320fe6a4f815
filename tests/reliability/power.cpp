// The power goes while the program trains, samples, compresses and does the rest, again and again. What it had
// not brought to the disk is lost, or kept in part. Then nothing under its final name is damaged, and whoever
// goes on ends with the very bytes of one who was never disturbed. What ended with success is there.
//
//   power_test [TRIES] [SEED]      120 tries and seed 1 if not given
//
// One run of a job is written down (power_shim.cpp), and the disk is computed as it may be at any moment of it
// (disk.h): that is the same as to cut the power there, and takes a tenth of the time.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tests/reliability/disk.h"
#include "tests/reliability/job.h"
#include "tests/reliability/tries.h"

namespace longstride::reliability {
namespace {

namespace fs = std::filesystem;

struct Tally {
  int64_t tries = 0, cuts = 0, at_the_end = 0, while_going_on = 0;
};

// Every file of the folder.
Worth all_files(const std::string& folder) {
  Worth found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    if (entry.is_directory()) {
      found[name + "/"] = "";
      continue;
    }
    std::ifstream file(entry.path(), std::ios::binary);
    found[name] = {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  return found;
}

class Power {
 public:
  Power(Workshop& shop, const Job& job, uint64_t seed)
      : shop_(shop), job_(job), random_(seed), journal_(shop.work() + "-journal") {
    shop_.restore();
    old_ = shop_.worth(job_);
    const Disk begin(shop_.work());
    const Ended ended = shop_.begin(job_, watched());
    if (ended.code != 0) give_up("it fails undisturbed: " + ended.err);
    new_ = shop_.worth(job_);
    first_ = read_journal(journal_);

    // The journal tells all that happened.
    const Worth real = all_files(shop_.work());
    Disk disk = begin;
    for (const Record& record : first_) disk.play(record);
    disk.restore_after(Loss::nothing, random_, shop_.work());
    try {
      expect_same(real, all_files(shop_.work()));
    } catch (const std::exception& error) {
      give_up(fmt::format("the journal has not all: {}", error.what()));
    }
  }

  // One job from its start to its end, through one to three losses of power.
  void once(Tally& tally) {
    last_.clear();
    shop_.restore();
    std::vector<Record> journal = first_;
    Disk begin(shop_.work());
    for (int cut = 1;; ++cut) {
      lose_power(begin, journal, tally);
      ++tally.cuts;
      if (cut == 3 || below(3) != 0) break;
      begin = Disk(shop_.work());
      const Ended ended = shop_.go_on(job_, watched());
      if (ended.code != 0) give_up("it cannot go on: " + ended.err);
      journal = read_journal(journal_);
      ++tally.while_going_on;
    }
    const Ended ended = shop_.go_on(job_);
    if (ended.code != 0) give_up("it cannot go on: " + ended.err);
    expect_same(new_, shop_.worth(job_));
    for (const std::string& name : shop_.temporaries()) give_up(name + " is left over");
    ++tally.tries;
  }

  const std::string& last() const { return last_; }

 private:
  Disturbance watched() const {
    Disturbance how;
    how.journal = journal_;
    return how;
  }

  void lose_power(Disk disk, const std::vector<Record>& journal, Tally& tally) {
    static const std::pair<Loss, const char*> kLosses[] = {
        {Loss::all, "all is lost that was not synced"},
        {Loss::in_order, "names in order, writes in part"},
        {Loss::in_any_order, "names in any order, writes in part"},
    };
    const auto end = static_cast<int64_t>(journal.size());
    int64_t moment = below(8) == 0 ? end : below(end + 1);
    // Half of the other moments are right after something that makes or removes a name, or syncs.
    if (moment < end && below(2) == 0)
      while (moment < end && moment > 0 && is_of_data(journal[static_cast<size_t>(moment - 1)])) ++moment;
    const auto& [loss, name] = kLosses[below(3)];
    last_ += fmt::format("{}power lost after {} of {} records, {}", last_.empty() ? "" : "; then ", moment,
                         end, name);
    for (int64_t i = 0; i < moment; ++i) disk.play(journal[static_cast<size_t>(i)]);
    disk.restore_after(loss, random_, shop_.work());
    const std::string damage = shop_.damage(job_, old_, new_);
    if (!damage.empty()) give_up(damage);
    if (moment < end) return;
    // It had ended with success.
    ++tally.at_the_end;
    const Worth there = shop_.worth(job_);
    for (const auto& [name_of_it, content] : new_) {
      const auto found = there.find(name_of_it);
      if (found == there.end() || found->second != content)
        give_up(name_of_it + " was said to be written and is lost");
    }
  }

  static bool is_of_data(const Record& record) {
    return record.deed == Deed::write || record.deed == Deed::open || record.deed == Deed::truncate;
  }

  int64_t below(int64_t limit) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(std::max<int64_t>(1, limit)));
  }

  Workshop& shop_;
  const Job& job_;
  std::mt19937_64 random_;
  std::string journal_;
  Worth old_, new_;
  std::vector<Record> first_;
  std::string last_;
};

int run(int64_t tries, uint64_t seed) {
  std::string folder = (fs::temp_directory_path() / "longstride-power-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) give_up("cannot create " + folder);
  Workshop shop(folder);
  int64_t total = 0, cuts = 0;
  for (size_t i = 0; i < shop.jobs().size(); ++i) {
    const Job& job = shop.jobs()[i];
    const int64_t share = share_of(i, shop.jobs().size(), tries);
    Tally tally;
    std::string last = "undisturbed";
    try {
      Power power(shop, job, seed + 1000 * i);
      while (tally.tries < share) {
        try {
          power.once(tally);
        } catch (...) {
          last = power.last();
          throw;
        }
      }
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}: try {} ({}): {}\nseed {}; the files are in {}\n", job.name, tally.tries, last,
                 error.what(), seed, shop.work());
      return 1;
    }
    fmt::print(
        "{:<20} {:>6} tries, {} losses ({} after the end, {} of them while it went on), each the same\n",
        job.name, tally.tries, tally.cuts, tally.at_the_end, tally.while_going_on);
    std::fflush(stdout);
    total += tally.tries, cuts += tally.cuts;
  }
  fs::remove_all(folder);
  fmt::print("{} tries with {} losses of power, nothing lost\n", total, cuts);
  return 0;
}

}  // namespace
}  // namespace longstride::reliability

int main(int count, char** arguments) {
  using namespace longstride::reliability;
  return run_tries(count, arguments, "power_test [TRIES] [SEED]", 2,
                   [](int64_t tries, uint64_t seed) { return run(tries, seed); });
}
