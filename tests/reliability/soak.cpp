// Trains for hours, with validation and checkpoints, and draws samples with random settings meanwhile. Watches that
// nothing grows and nothing becomes slower, and that a sample is what its seed says.
//
//   soak [HOURS] [REQUESTS] [FILE] [SEED]      6 hours, 100,000 requests spread over them, soak.json, seed 1
//
// It uses a copy of the program, so that another may be built meanwhile. LONGSTRIDE_TEST_DEVICE=cuda for a GPU.
//
// Fails by the rules of soak_watch.h, if a process ends badly, if a sample has not the bytes that were asked for,
// if the same request gives other bytes the second time, and if something is left over at the end.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/reliability/soak_watch.h"

namespace longstride::reliability {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

constexpr int64_t kContext = 128;
constexpr int64_t kLeftFree = int64_t{256} << 20;  // of the disk

constexpr const char* kProgram = "/longstride";  // the copy, in the folder

constexpr const char* kConfig = R"([model]
context = 128
layers = 2
heads = 2
width = 64
pattern = 'fixed:16,4'
[data]
kind = 'text'
path = 'text.txt'
cache = 'cache'
[train]
recipe = 'paper'
steps = 60
batch = 4
log_every = 10
checkpoint_every = 250
validate_every = 500
validate_bytes = 4096
[compute]
precision = 'f32'
threads = 1
device = )";

std::string device() {
  const char* name = std::getenv("LONGSTRIDE_TEST_DEVICE");
  return name != nullptr ? name : "cpu";
}

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error(what); }

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_all(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string joined(const Words& words) {
  std::string text = "longstride";
  for (const std::string& word : words) text += " " + word;
  return text;
}

// The program in `folder`, with what it says in `said`. It does not outlive this one.
pid_t start(const std::string& folder, const Words& words, const std::string& said) {
  const pid_t child = fork();
  if (child < 0) give_up("cannot start a process");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nothing = open("/dev/null", O_RDONLY);
  const int file = open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  dup2(nothing, STDIN_FILENO), dup2(file, STDOUT_FILENO), dup2(file, STDERR_FILENO);
  close(nothing), close(file);
  std::vector<char*> pointers{const_cast<char*>("longstride")};
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  if (chdir(folder.c_str()) == 0) execv((folder + kProgram).c_str(), pointers.data());
  _exit(126);
}

struct Ended {
  int code = -1;  // 128 and the number of the signal that ended it
  int64_t peak = 0;
};

Ended wait_for(pid_t child) {
  int status = 0;
  rusage usage{};
  while (wait4(child, &status, 0, &usage) < 0)
    if (errno != EINTR) give_up("cannot wait for a process");
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), usage.ru_maxrss * 1024};
}

class Training {
 public:
  Training(const std::string& folder, double interval)
      : folder_(folder), begun_(std::chrono::steady_clock::now()), interval_(interval) {
    process_ =
        start(folder_, {"train", "text.toml", "--run", "run", "--quiet", "--set", "train.steps=1000000000"},
              folder_ + "/train.log");
    watch_ = std::thread([this] { watch(); });
  }
  ~Training() {
    ended_ = true;
    if (watch_.joinable()) watch_.join();
    if (process_ > 0) kill(process_, SIGKILL), wait_for(process_);
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  // What went wrong; "" if nothing did.
  std::string complaint() const { return failed_ ? complaint_ : ""; }
  std::string end() {
    ended_ = true;
    watch_.join();
    kill(process_, SIGTERM);
    const Ended ended = wait_for(std::exchange(process_, -1));
    Reading last;
    add_progress(last);
    steps_ = last.steps;
    if (failed_) return complaint_;
    if (ended.code == 128 + SIGTERM) return "";
    return fmt::format("training ended with {}: {}", ended.code, read_all(folder_ + "/train.log"));
  }
  // Once it has ended.
  const std::vector<Reading>& readings() const { return readings_; }
  int64_t steps() const { return steps_; }

 private:
  void watch() {
    while (!ended_ && !failed_) {
      try {
        Reading reading = look_at(process_);
        reading.seconds = seconds();
        add_progress(reading);
        reading.folder_bytes = bytes_in(folder_ + "/run");
        reading.free_bytes = static_cast<int64_t>(fs::space(folder_).available);
        if (reading.steps > 0) readings_.push_back(reading);
        if (reading.free_bytes < kLeftFree) give_up("the disk is nearly full");
      } catch (const std::exception& error) {
        complaint_ = fmt::format("training after {:.0f} s: {}: {}", seconds(), error.what(),
                                 read_all(folder_ + "/train.log"));
        failed_ = true;
      }
      const double next = seconds() + interval_;
      while (!ended_ && seconds() < next) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  // From the last whole line of the curves that is about steps.
  void add_progress(Reading& reading) const {
    constexpr std::streamoff kEnough = 4096;
    std::ifstream file(folder_ + "/run/metrics.jsonl", std::ios::binary | std::ios::ate);
    if (!file) return;
    const std::streamoff bytes = file.tellg();
    file.seekg(std::max<std::streamoff>(0, bytes - kEnough));
    for (std::string line; std::getline(file, line);) {
      const json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (file.eof() || !parsed.is_object() || !parsed.contains("train/tokens_per_second")) continue;
      reading.steps = parsed.at("step").get<int64_t>();
      reading.tokens_per_second = parsed.at("train/tokens_per_second").get<double>();
    }
  }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
  }

  std::string folder_;
  std::chrono::steady_clock::time_point begun_;
  double interval_;
  pid_t process_ = -1;
  std::thread watch_;
  std::atomic<bool> ended_{false}, failed_{false};
  std::string complaint_;
  std::vector<Reading> readings_;
  int64_t steps_ = 0;
};

struct Request {
  Words words;  // without the output
  int64_t count = 1, length = 0;
  bool repeats = true;  // not of a run that goes on, whose best step changes
};

class Samples {
 public:
  Samples(const std::string& folder, uint64_t seed) : folder_(folder), random_(seed) {
    const std::string said = folder_ + "/help.txt";
    if (wait_for(start(folder_, {"sample", "--help"}, said)).code != 0) give_up("sample --help fails");
    has_min_p_ = read_all(said).find("--min-p") != std::string::npos;
    const std::string text = read_all(folder_ + "/text.txt");
    for (int i = 0; i < kPrimes; ++i)
      write_all(folder_ + fmt::format("/prime-{}.txt", i), text.substr(below(1000), 1 + below(2 * kContext)));
  }

  // Some requests are earlier ones, whose bytes must be the same.
  void one() {
    const bool again = !known_.empty() && below(8) == 0;
    const size_t place = again ? below(known_.size()) : 0;
    const Request request = again ? known_[place].first : make();
    const uint64_t digest = digest_of(draw(request));
    ++done_;
    if (again) {
      ++repeated_;
      if (digest != known_[place].second) give_up("other bytes the second time: " + joined(request.words));
    } else if (request.repeats) {
      constexpr size_t kMost = 1000;
      if (known_.size() < kMost)
        known_.emplace_back(request, digest);
      else
        known_[below(kMost)] = {request, digest};
    }
  }

  int64_t done() const { return done_; }
  int64_t repeated() const { return repeated_; }
  int64_t bytes() const { return bytes_; }
  int64_t of_the_run() const { return of_the_run_; }
  const std::vector<double>& peaks() const { return peaks_; }

 private:
  static constexpr int kPrimes = 20;

  Request make() {
    Request request;
    const auto add = [&](const char* option, const std::string& value) {
      request.words.insert(request.words.end(), {option, value});
    };
    const auto real = [&](double from, double to) {
      return fmt::format("{:.3f}", from + (to - from) * static_cast<double>(below(1001)) / 1000);
    };
    const bool from_run = below(10) == 0 && fs::exists(folder_ + "/run/best.json");
    request.repeats = !from_run;
    if (from_run) ++of_the_run_;
    request.words = {"sample", from_run ? "run" : "base", "--set", "compute.threads=1"};
    request.length = 1 + static_cast<int64_t>(below(below(20) == 0 ? 1500 : 300));
    add("--length", std::to_string(request.length));
    add("--seed", std::to_string(random_()));
    if (below(4) == 0) {
      request.count = 2 + static_cast<int64_t>(below(4));
      add("--count", std::to_string(request.count));
    }
    if (below(5) == 0)
      add("--temperature", "0");
    else if (below(2) == 0)
      add("--temperature", real(0.2, 2));
    if (below(2) == 0) add("--top-k", std::to_string(below(257)));
    if (below(2) == 0) add("--top-p", real(0.05, 1));
    if (has_min_p_ && below(2) == 0) add("--min-p", real(0, 0.5));
    if (below(3) == 0) add("--hop", real(0.1, 0.9));
    if (below(3) == 0) add("--streams", std::to_string(1 + below(6)));
    if (below(3) == 0) {
      add("--prime", fmt::format("prime-{}.txt", below(kPrimes)));
      if (below(3) == 0) add("--prime-fraction", real(0.1, 1));
    }
    if (below(6) == 0) request.words.emplace_back("--exact-scores");
    if (below(6) == 0) add("--weights", "int8");
    // A state keeps its weights in the run (pins/), which would grow with each new best step by design.
    if (!from_run && below(6) == 0) add("--state", "state");
    return request;
  }

  // All bytes of the samples.
  std::string draw(const Request& request) {
    for (int64_t i = 1; i <= request.count; ++i) fs::remove(file_of(request, i));
    fs::remove(folder_ + "/state");
    Words words = request.words;
    words.insert(words.end(), {"--output", "out.txt"});
    const std::string said = folder_ + "/sample.log";
    const Ended ended = wait_for(start(folder_, words, said));
    if (ended.code != 0)
      give_up(fmt::format("{} ended with {}: {}", joined(words), ended.code, read_all(said)));
    std::string all;
    for (int64_t i = 1; i <= request.count; ++i) {
      const std::string bytes = read_all(file_of(request, i));
      if (std::ssize(bytes) != request.length)
        give_up(fmt::format("{} gave {} bytes", joined(words), bytes.size()));
      all += bytes;
    }
    bytes_ += std::ssize(all);
    peaks_.push_back(static_cast<double>(ended.peak));
    return all;
  }
  std::string file_of(const Request& request, int64_t sample) const {
    return folder_ + (request.count == 1 ? "/out.txt" : fmt::format("/out-{}.txt", sample));
  }
  static uint64_t digest_of(const std::string& bytes) { return std::hash<std::string>()(bytes); }

  uint64_t below(uint64_t limit) { return random_() % limit; }

  std::string folder_;
  std::mt19937_64 random_;
  bool has_min_p_ = false;
  std::vector<std::pair<Request, uint64_t>> known_;
  int64_t done_ = 0, repeated_ = 0, bytes_ = 0, of_the_run_ = 0;
  std::vector<double> peaks_;
};

void expect_success(const std::string& folder, const Words& words) {
  const std::string said = folder + "/said.txt";
  const Ended ended = wait_for(start(folder, words, said));
  if (ended.code != 0)
    give_up(fmt::format("{} ended with {}: {}", joined(words), ended.code, read_all(said)));
}

json json_of(const Reading& reading) {
  return {{"seconds", reading.seconds},
          {"memory", reading.memory},
          {"descriptors", reading.descriptors},
          {"threads", reading.threads},
          {"cpu_seconds", reading.cpu_seconds},
          {"steps", reading.steps},
          {"folder_bytes", reading.folder_bytes},
          {"free_bytes", reading.free_bytes},
          {"tokens_per_second", reading.tokens_per_second}};
}

json json_of(const Finding& finding) {
  return {{"name", finding.name},          {"unit", finding.unit},   {"second_quarter", finding.before},
          {"last_quarter", finding.after}, {"limit", finding.limit}, {"judged", finding.judged},
          {"failed", finding.failed()}};
}

int run(double hours, int64_t requests, const std::string& file, uint64_t seed) {
  std::string folder = (fs::temp_directory_path() / "longstride-soak-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) give_up("cannot create " + folder);
  std::string text;
  for (int i = 0; i < 6000; ++i) text += "line " + std::to_string(i * i % 997) + " of the log\n";
  write_all(folder + "/text.txt", text);
  write_all(folder + "/text.toml", kConfig + ("'" + device() + "'\n"));
  fs::copy_file(LONGSTRIDE_BINARY, folder + kProgram);
  expect_success(folder, {"train", "text.toml", "--run", "base", "--quiet"});

  const auto begun = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  };
  const double length = 3600 * hours;
  Samples samples(folder, seed);
  std::string complaint;
  std::vector<Reading> readings;
  std::vector<double> of_gpu;
  double next_look = 0;
  int64_t steps = 0;
  // Between two samples, when only the training is there. Not before its first validation, which takes memory still.
  const auto look_at_gpu = [&] {
    if (device() == "cpu" || seconds() < next_look || !fs::exists(folder + "/run/best.json")) return;
    of_gpu.push_back(gpu_memory(device()));
    next_look = seconds() + std::min(10.0, length / 40);
  };
  {
    Training training(folder, std::min(5.0, length / 40));
    try {
      while (seconds() < length && training.complaint().empty()) {
        const double next =
            std::min(length, length * static_cast<double>(samples.done()) / static_cast<double>(requests));
        if (samples.done() < requests && seconds() >= next)
          samples.one();
        else
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
        look_at_gpu();
      }
    } catch (const std::exception& error) {
      complaint = error.what();
    }
    const std::string of_training = training.end();
    if (complaint.empty()) complaint = of_training;
    readings = training.readings();
    steps = training.steps();
  }
  // The run is whole and goes on.
  try {
    if (complaint.empty()) {
      expect_success(folder, {"verify", "run"});
      expect_success(folder,
                     {"train", "run", "--quiet", "--set", fmt::format("train.steps={}", steps + 1000)});
      for (const auto& entry : fs::recursive_directory_iterator(folder))
        if (entry.path().filename().string().starts_with(".tmp-"))
          give_up(entry.path().string() + " is left over");
    }
  } catch (const std::exception& error) {
    complaint = error.what();
  }

  std::vector<Finding> findings = judge(readings);
  findings.push_back(judge_peaks(samples.peaks()));
  if (device() != "cpu") findings.push_back(judge_gpu_memory(of_gpu));
  const bool grown =
      std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.failed(); });
  json result{{"hours", seconds() / 3600},
              {"device", device()},
              {"seed", seed},
              {"requests", requests},
              {"requests_done", samples.done()},
              {"requests_repeated", samples.repeated()},
              {"requests_of_the_run_in_training", samples.of_the_run()},
              {"sampled_bytes", samples.bytes()},
              {"steps", steps},
              {"failed", grown || !complaint.empty()},
              {"complaint", complaint},
              {"gpu_memory", of_gpu},
              {"findings", json::array()},
              {"readings", json::array()}};
  for (const Finding& finding : findings) result["findings"].push_back(json_of(finding));
  for (const Reading& reading : readings) result["readings"].push_back(json_of(reading));
  write_all(file, result.dump(1, ' ', false, json::error_handler_t::replace) + "\n");

  fmt::print(
      "{:.2f} hours, {} steps, {} of {} requests ({} a second time, {} of the run in training), {} bytes\n",
      seconds() / 3600, steps, samples.done(), requests, samples.repeated(), samples.of_the_run(),
      samples.bytes());
  fmt::print("{}", table_of(findings));
  if (!complaint.empty() || grown) {
    fmt::print("FAILED: {}\nseed {}; the files are in {}, the readings in {}\n",
               complaint.empty() ? "see the table" : complaint, seed, folder, file);
    return 1;
  }
  fs::remove_all(folder);
  fmt::print("the readings are in {}\n", file);
  return 0;
}

}  // namespace
}  // namespace longstride::reliability

int main(int count, char** arguments) {
  const double hours = count > 1 ? std::strtod(arguments[1], nullptr) : 6;
  const int64_t requests = count > 2 ? std::strtoll(arguments[2], nullptr, 10) : 100000;
  const int64_t seed = count > 4 ? std::strtoll(arguments[4], nullptr, 10) : 1;
  if (count > 5 || !(hours > 0) || requests < 1 || seed < 0) {
    fmt::print(stderr, "usage: soak [HOURS] [REQUESTS] [FILE] [SEED]\n");
    return 2;
  }
  try {
    return longstride::reliability::run(hours, requests, count > 3 ? arguments[3] : "soak.json",
                                        static_cast<uint64_t>(seed));
  } catch (const std::exception& error) {
    fmt::print(stderr, "soak: {}\n", error.what());
    return 1;
  }
}
