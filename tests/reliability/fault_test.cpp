// Every kind of operation on every kind of file fails, by each error that the system has for it. Then either
// all is as if nothing had happened, or the program ends with one clear line and an exit status, what was
// there before is still there, and the same command succeeds afterwards.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/reliability/job.h"
#include "tests/support/temporary_folder.h"

namespace longstride::reliability {
namespace {

using Worth = std::map<std::string, std::string>;

// What is written, and how: every operation that may lose something, on every kind of file. A new one of the
// program has to be added here, and is then tried below.
std::set<std::string> known_writers() {
  std::set<std::string> known;
  const auto add = [&](const std::string& name, std::initializer_list<const char*> calls) {
    for (const char* call : calls) known.insert(std::string(call) + " " + name);
  };
  // Files that appear whole or not at all.
  for (const char* name : {"RUN/config.toml", "RUN/data.json", "RUN/best.json",
                           "RUN/checkpoints/step-N/amended.json", "cache/HASH", "s", "out.txt", "out.png",
                           "out.wav", "again.txt", "curve.csv", "drawing.svg", "drawing.png", "reach.png"})
    add(name, {"create", "write", "fsync", "close", "rename"});
  for (const char* name : {"entropy.csv", "entropy.html", "report.html", "made.toml", "preview.txt",
                           "RUN/samples/step-N.txt", "cache/step-times/HASH.json"})
    add(name, {"create", "write", "fsync", "close", "rename"});
  for (const char* name : {"c.lsc", "m.lsc"})  // do not replace
    add(name, {"create", "write", "fsync", "close", "rename specially"});
  // A checkpoint is a folder that appears whole.
  for (const char* name : {"model.safetensors", "state.safetensors", "checksums.json"})
    add(std::string("RUN/checkpoints/step-N/") + name, {"create", "write", "fsync", "close"});
  add("RUN/checkpoints/step-N", {"mkdir", "fsync", "rename"});
  // Files that grow.
  add("RUN/metrics.jsonl", {"create", "write", "fsync", "close"});
  add("RUN/events", {"create", "write", "close"});
  add("RUN/commands.jsonl", {"create", "write", "close"});
  add("RUN/.lock", {"create", "truncate", "write", "close"});
  add("cache/HASH.lock", {"create", "close"});
  add("cache", {"create"});  // a file without a name
  add("cache/unnamed", {"write", "close"});
  // Second names of weights.
  add("RUN/model.safetensors", {"link", "rename"});
  add("RUN/pins/step-N-DIGEST.safetensors", {"link"});
  // Folders.
  for (const char* name : {"RUN", "RUN/checkpoints", "RUN/pins", "RUN/samples", "cache/step-times"})
    add(name, {"mkdir", "fsync"});
  for (const char* name : {".", "cache"}) add(name, {"fsync"});
  // Files that only show whether there is room.
  for (const char* name : {"RUN/file", "RUN/checkpoints/file"}) add(name, {"create", "close"});
  // Files that are read as memory.
  for (const char* name : {"model.safetensors", "state.safetensors", "checksums.json", "amended.json"})
    add(std::string("RUN/checkpoints/step-N/") + name, {"mmap"});
  for (const char* name : {"RUN/model.safetensors", "RUN/best.json"}) add(name, {"mmap"});
  return known;
}

bool may_lose(const std::string& call) {
  static const std::set<std::string> kCalls{"write", "create", "fsync",    "rename", "rename specially",
                                            "link",  "mkdir",  "truncate", "mmap"};
  return kCalls.contains(call);
}

bool changes_files(const std::string& call) {
  return call == "remove" || (may_lose(call) && call != "mmap" && call != "fsync");
}

// Where the program goes on without, and why.
bool may_be_done_without(const std::string& key) {
  // Steps are measured again the next time, in seconds.
  if (key.find(" cache/step-times") != std::string::npos || key == "fsync cache") return true;
  static const std::map<std::string, const char*> kWhy{
      {"write RUN/.lock", "a lock is one without its holder's name"},
      {"truncate RUN/.lock", "a lock is one without its holder's name"},
      {"fsync RUN/metrics.jsonl", "warned of; the checkpoint that comes next is worth more"},
      {"link RUN/model.safetensors", "copied instead"},
      {"link RUN/pins/step-N-DIGEST.safetensors", "copied instead, or said"},
      {"mkdir RUN/pins", "said; the file can still be read with its checkpoint"},
      {"fsync RUN/pins", "said; the file can still be read with its checkpoint"},
      {"create cache", "a file that has a name for a moment instead"},
      {"rename specially c.lsc", "linked and renamed instead"},
      {"rename specially m.lsc", "linked and renamed instead"},
      {"create cache/HASH.lock", "decoded without; at worst twice"},
      {"mkdir RUN/ranks", "a log for people who look for a slow rank, which never fails"},
      {"write RUN/ranks/rank-1.log", "the same"},
      {"mmap RUN/model.safetensors", "one of several places where the weights may be"},
  };
  return kWhy.contains(key) || key.starts_with("close ");  // only what is on the disk already is closed
}

// Steps that were not logged are part of the next line.
bool costs_a_line_of_metrics(const std::string& key) {
  return key == "write RUN/metrics.jsonl" || key == "write RUN/events";
}

struct Fault {
  int error = 0;  // 0: a part is done
  bool lasts = false;

  bool passes() const { return error == 0 || error == EINTR; }  // the program must go on
  std::string kind() const { return error == 0 ? "short" : std::to_string(error); }
  std::string reason() const { return std::strerror(error); }
};

std::vector<Fault> faults_of(const std::string& call) {
  if (call == "write") return {{ENOSPC, true}, {EDQUOT}, {EIO}, {EINTR}, {}};
  if (call == "fsync") return {{EIO}, {ENOSPC}, {EDQUOT}, {EINTR}};
  if (call == "create") return {{ENOSPC, true}, {EDQUOT}, {EINTR}};
  if (call == "open") return {{EIO}, {EMFILE}, {EINTR}};
  if (call == "mkdir" || call == "link") return {{ENOSPC, true}, {EDQUOT}, {EIO}};
  if (call.starts_with("rename")) return {{ENOSPC}, {EDQUOT}, {EIO}};
  if (call == "mmap") return {{ENOMEM}, {ENODEV}};
  if (call == "close") return {{EIO}, {EDQUOT}, {EINTR}};
  if (call == "read" || call == "pread") return {{EIO}, {EINTR}, {}};
  if (call == "lock") return {{EINTR}, {ENOLCK}};
  return {{EIO}};
}

std::string key_of(const Operation& operation) { return operation.call + " " + role_of(operation.name); }

class FaultTest : public testing::Test {
 protected:
  FaultTest() : shop_(folder_.path()) {}

  // The operations of a job that nothing disturbs, by what they do to what kind of file and the place in the program
  // that calls.
  using Places = std::map<std::pair<std::string, std::string>, std::vector<Operation>>;
  Places operations_of(const Job& job) {
    shop_.restore();
    std::vector<Operation> log;
    const Ended ended = shop_.begin(job, {}, &log);
    EXPECT_EQ(ended.code, 0) << job.name << ": " << ended.err;
    Places found;
    for (const Operation& operation : log) {
      // What a GPU's driver does for itself, as the removal of a file of its own, is its own affair.
      if (operation.site.starts_with("libcuda")) continue;
      found[{key_of(operation), operation.site}].push_back(operation);
    }
    return found;
  }
  // From here on this job is tried. Returns its operations.
  Places take(const Job& job) {
    job_ = &job;
    shop_.restore();
    old_ = shop_.worth(job);
    Places operations = operations_of(job);
    new_ = shop_.worth(job);
    return operations;
  }

  void expect_the_same(const Worth& expected, bool but_metrics) {
    expect_the_same(expected, shop_.worth(*job_), but_metrics);
  }
  void expect_the_same(const Worth& expected, const Worth& seen, bool but_metrics) {
    for (const auto& [name, content] : expected) {
      const bool told = but_metrics && (name.ends_with("metrics.jsonl") || name.ends_with("amended.json") ||
                                        name.ends_with("state.safetensors"));
      EXPECT_TRUE(seen.contains(name)) << name << " is missing";
      EXPECT_TRUE(told || !seen.contains(name) || seen.at(name) == content) << name << " differs";
    }
    for (const auto& [name, content] : seen)
      EXPECT_TRUE(expected.contains(name)) << name << " is one too many";
  }

  // One line of complaint, with the system's reason, after whatever else was said.
  void expect_one_clear_line(const std::string& err, const Fault& fault) {
    EXPECT_TRUE(err.ends_with('\n')) << err;
    const size_t begin = err.rfind('\n', err.size() - 2) + 1;
    const std::string last = err.substr(begin);
    EXPECT_THAT(last, testing::StartsWith("longstride: "));
    EXPECT_THAT(last, testing::HasSubstr(fault.reason()));
    EXPECT_LT(last.size(), 500u) << last;
    EXPECT_EQ(err.substr(0, begin).find("longstride: "), std::string::npos) << err;
  }

  void try_fault(const Operation& operation, const Fault& fault) {
    const std::string key = key_of(operation);
    SCOPED_TRACE(job_->name + ": " + (fault.error == 0 ? "a part" : fault.reason()) + " at " + key +
                 ", operation " + std::to_string(operation.number) + ", called from " + operation.site);
    shop_.restore();
    const Ended ended =
        shop_.begin(*job_, {.at = operation.number, .kind = fault.kind(), .lasts = fault.lasts});
    if (ended.code == 0 && ended.err.find("note       no samples of ") != std::string::npos) {
      // The page is written without the samples, which are drawn the next time.
      EXPECT_THAT(key, testing::HasSubstr(" RUN/samples"));
      EXPECT_FALSE(fault.passes());
      EXPECT_THAT(ended.err, testing::HasSubstr(fault.reason()));
      EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
      EXPECT_EQ(shop_.go_on(*job_).code, 0);
      expect_the_same(new_, false);
      return;
    }
    if (ended.code == 0 && job_->name == "report" && !fault.passes() && !may_lose(operation.call)) {
      // What cannot be read is told in the page, which is about more than one file.
      const std::string page = shop_.worth(*job_).at("report.html");
      const auto tells = [&](const std::string& words) { return page.find(words) != std::string::npos; };
      EXPECT_TRUE(page == new_.at("report.html") || tells(fault.reason()) || tells("cannot read it") ||
                  tells("cannot be read"));
      return;
    }
    if (ended.code == 0) {
      expect_the_same(new_, false);
      EXPECT_TRUE(fault.passes() || !may_lose(operation.call) || may_be_done_without(key))
          << "it says that all went well";
      return;
    }
    EXPECT_EQ(ended.code, 1) << "signal " << ended.signal << ": " << ended.err;
    EXPECT_FALSE(fault.passes()) << ended.err;
    expect_one_clear_line(ended.err, fault);
    EXPECT_EQ(shop_.damage(*job_, old_, new_), "");
    // What cannot be removed stays until the next time.
    if (operation.call != "remove" && operation.call != "open") {
      EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
    }
    const Ended again = shop_.go_on(*job_);
    EXPECT_EQ(again.code, 0) << again.err;
    expect_the_same(new_, costs_a_line_of_metrics(key));
    EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
  }

  void try_fault_of_rank(const Operation& operation) {
    const std::string key = key_of(operation);
    const Fault fault = faults_of(operation.call).front();
    SCOPED_TRACE(job_->name + ": " + fault.reason() + " of rank " + std::to_string(operation.rank) + " at " +
                 key);
    shop_.restore();
    const Ended ended = shop_.begin(
        *job_, {.at = operation.number, .kind = fault.kind(), .lasts = fault.lasts, .rank = operation.rank});
    if (ended.code == 0) {
      EXPECT_TRUE(may_be_done_without(key)) << "it says that all went well";
    } else {
      EXPECT_EQ(ended.code, 1) << "signal " << ended.signal << ": " << ended.err;
      EXPECT_THAT(ended.err, testing::HasSubstr("longstride: "));
      EXPECT_THAT(ended.err, testing::HasSubstr(fault.reason()));
      EXPECT_EQ(shop_.damage(*job_, old_, new_), "");
      EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
      const Ended again = shop_.go_on(*job_);
      EXPECT_EQ(again.code, 0) << again.err;
    }
    expect_the_same(new_, without_older_checkpoints(shop_.worth(*job_)), costs_a_line_of_metrics(key));
    EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
  }

  TemporaryFolder folder_;
  Workshop shop_;
  const Job* job_ = nullptr;
  Worth old_, new_;
};

TEST_F(FaultTest, EveryKnownWriterIsReachedAndNoOther) {
  std::set<std::string> reached;
  std::map<std::string, std::set<std::string>> sites;
  for (const Job& job : shop_.jobs())
    for (const auto& [place, operations] : operations_of(job)) {
      reached.insert(place.first);
      if (may_lose(operations.front().call)) sites[place.first].insert(place.second);
    }
  const std::set<std::string> known = known_writers();
  for (const std::string& key : known) EXPECT_TRUE(reached.contains(key)) << "not reached: " << key;
  // The places in the program stand beside, for whoever looks for one.
  for (const auto& [key, places] : sites)
    EXPECT_TRUE(known.contains(key)) << "not listed: " << key << ", called from "
                                     << testing::PrintToString(places);
}

// All faults at the first and the last of the operations of a kind at a place; otherwise one of them, each time another.
bool every_fault() { return std::getenv("LONGSTRIDE_EVERY_FAULT") != nullptr; }

// LONGSTRIDE_PART="I/N", as 1/8: every N-th of the places alone, from the I-th on, for several processes at a time.
struct Part {
  size_t first = 0, count = 1;
  bool has(size_t place) const { return place % count == first; }
};
Part part() {
  Part part;
  const char* text = std::getenv("LONGSTRIDE_PART");
  if (text == nullptr) return part;
  if (std::sscanf(text, "%zu/%zu", &part.first, &part.count) != 2 || part.first < 1 ||
      part.first > part.count)
    throw std::runtime_error(std::string("LONGSTRIDE_PART is I/N: ") + text);
  --part.first;
  return part;
}

// Each kind of operation at each place in the program; those that an earlier job has already are not repeated.
TEST_F(FaultTest, NothingIsLost) {
  std::set<Places::key_type> tried;
  const Part own = part();
  size_t here = 0;
  int total = 0;
  for (const Job& job : shop_.jobs()) {
    const Places operations = take(job);
    int count = 0;
    for (const auto& [place, found] : operations) {
      if (!tried.insert(place).second) continue;
      const size_t turn = tried.size() - 1;
      if (!own.has(turn)) continue;
      ++here;
      const std::vector<Fault> faults = faults_of(found.front().call);
      if (every_fault()) {
        for (const Fault& fault : faults) {
          try_fault(found.front(), fault), ++count;
          if (found.size() > 1) try_fault(found.back(), fault), ++count;
        }
      } else {
        try_fault(turn % 2 == 0 ? found.front() : found.back(), faults[turn % faults.size()]), ++count;
      }
      // The list of what was tried, for whoever wants to see that a place is in it.
      std::printf("  %s at %s\n", place.first.c_str(), place.second.c_str());
    }
    std::printf("%s: %d faults\n", job.name.c_str(), count);
    total += count;
  }
  std::printf("%d faults at %zu of %zu places\n", total, here, tried.size());
}

// Random kills, as crash_test makes them, may miss the one place that matters.
TEST_F(FaultTest, AKillAtEachKindOfOperationLosesNothing) {
  std::set<Places::key_type> tried;
  const Part own = part();
  size_t turn = 0;
  for (const Job& job : shop_.jobs()) {
    const Places operations = take(job);
    for (const auto& [place, found] : operations) {
      const auto& [key, site] = place;
      const std::string& call = found.front().call;
      if (!tried.insert(place).second || !own.has(tried.size() - 1) || !changes_files(call)) continue;
      std::vector<const Operation*> chosen{&found.front(), &found.back()};
      if (!every_fault()) chosen.erase(chosen.begin() + static_cast<int64_t>(turn++ % 2));
      for (const Operation* operation : chosen) {
        SCOPED_TRACE(job.name + ": " + key + ", operation " + std::to_string(operation->number));
        shop_.restore();
        const Ended ended =
            shop_.begin(job, {.at = operation->number, .kind = call == "write" ? "kill-half" : "kill-after"});
        EXPECT_EQ(ended.signal, SIGKILL) << ended.code << ended.err;
        EXPECT_EQ(shop_.damage(job, old_, new_), "");
        const Ended again = shop_.go_on(job);
        EXPECT_EQ(again.code, 0) << again.err;
        expect_the_same(new_, false);
        EXPECT_THAT(shop_.temporaries(), testing::IsEmpty());
      }
    }
  }
}

// One rank of two meets each kind of failure that may lose something. The other must end too.
TEST_F(FaultTest, OfOneRankNothingIsLost) {
  if (std::getenv("LONGSTRIDE_TEST_DEVICE") != nullptr) GTEST_SKIP() << "there may be one GPU";
  size_t count = 0;
  for (size_t i = 0; i < shop_.rank_jobs().size(); ++i) {
    job_ = &shop_.rank_jobs()[i];
    shop_.restore();
    old_ = shop_.worth(*job_);
    std::vector<Operation> log;
    const Ended undisturbed = shop_.begin(*job_, {}, &log);
    ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
    new_ = without_older_checkpoints(shop_.worth(*job_));
    std::map<std::pair<int, std::string>, Operation> places;
    for (const Operation& operation : log)
      if (operation.rank >= 0 && may_lose(operation.call))
        places.try_emplace({operation.rank, key_of(operation)}, operation);
    EXPECT_GT(places.size(), 20u);
    size_t turn = 0;
    for (const auto& [place, operation] : places)
      if (every_fault() || turn++ % shop_.rank_jobs().size() == i) {
        try_fault_of_rank(operation), ++count;
      }
  }
  std::printf("%zu faults of one rank\n", count);
}

}  // namespace
}  // namespace longstride::reliability
