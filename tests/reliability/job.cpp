#include "tests/reliability/job.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/checkpoint/checkpoint.h"

namespace longstride::reliability {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

using namespace std::string_literals;
std::string read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_all(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

// Little-endian.
std::string number(uint32_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

std::string device() {
  const char* name = std::getenv("LONGSTRIDE_TEST_DEVICE");
  return name != nullptr ? name : "cpu";
}

std::string config(const std::string& kind, const std::string& path, int context, const std::string& more) {
  return "[model]\ncontext = " + std::to_string(context) +
         "\nlayers = 1\nheads = 2\nwidth = 16\npattern = 'window:16'\n[data]\nkind = '" + kind +
         "'\npath = '" + path +
         "'\ncache = 'cache'\nsplit = [0.9, 0.1]\n[train]\nbatch = 2\ndropout = 0.1\nsteps = 12\n"
         "checkpoint_every = 2\nvalidate_every = 4\nvalidate_bytes = 512\nkeep_last = 2\nlog_every = 3\n"
         "[compute]\ndevice = '" +
         device() + "'\nprecision = 'f32'\nthreads = 1\n" + more;
}

std::string some_text() {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "line " + std::to_string(i * i % 97) + " of the log\n";
  return text;
}

// 24 pictures of 4 x 4 x 3.
std::string some_pictures() {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (24, 4, 4, 3), }";
  header.resize(117, ' ');
  std::string file = "\x93NUMPY\x01\x00"s + number(118, 2) + header + "\n";
  for (int i = 0; i < 24 * 48; ++i) file.push_back(static_cast<char>(i * i % 251));
  return file;
}

std::string some_sound() {
  constexpr uint32_t kRate = 8000, kSamples = 6000;
  std::string file = "RIFF" + number(36 + 2 * kSamples, 4) + "WAVEfmt " + number(16, 4) + number(1, 2) +
                     number(1, 2) + number(kRate, 4) + number(2 * kRate, 4) + number(2, 2) + number(16, 2) +
                     "data" + number(2 * kSamples, 4);
  for (uint32_t i = 0; i < kSamples; ++i) file += number(i * 37 % 4000 * (i % 3), 2);
  return file;
}

// A tar of one file.
std::string archive_of(const std::string& name, const std::string& content) {
  constexpr size_t kBlock = 512;
  std::string header(kBlock, '\0');
  const auto set = [&](size_t at, const std::string& text) { header.replace(at, text.size(), text); };
  char size[13];
  std::snprintf(size, sizeof size, "%011zo", content.size());
  set(0, name), set(100, "0000644"), set(108, "0000000"), set(116, "0000000"), set(124, size);
  set(136, "00000000000"), set(148, "        "), set(156, "0"),
      set(257, std::string("ustar\0"
                           "00",
                           8));
  unsigned sum = 0;
  for (const char byte : header) sum += static_cast<unsigned char>(byte);
  std::snprintf(size, sizeof size, "%06o", sum);
  set(148, std::string(size, 7));
  std::string archive = header + content;
  archive.resize((archive.size() + kBlock - 1) / kBlock * kBlock + 2 * kBlock);
  return archive;
}

bool varies(const std::string& key) {
  return key.find("seconds") != std::string::npos || key.find("tokens_per_second") != std::string::npos ||
         key == "time" || key.starts_with("memory/") || key == "checksum";
}

// Without the members that differ from one time to the next.
json stripped(const json& from) {
  if (!from.is_object()) return from;
  json kept = json::object();
  for (const auto& [key, value] : from.items())
    if (!varies(key)) kept[key] = stripped(value);
  return kept;
}

std::string worth_of_lines(const std::string& text) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    kept += stripped(json::parse(line, nullptr, /*allow_exceptions=*/false)).dump() + "\n";
  return kept;
}

// The header without what varies, then the tensors.
std::string worth_of_tensors(const std::string& file) {
  uint64_t length = 0;
  if (file.size() < sizeof length) return file;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > file.size() - sizeof length) return file;
  const json header = json::parse(file.substr(sizeof length, length), nullptr, /*allow_exceptions=*/false);
  return stripped(header).dump() + file.substr(sizeof length + length);
}

// Nothing for files that say nothing of the outcome.
std::string worth_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name == "state.safetensors") return worth_of_tensors(read_all(path));
  if (name == "metrics.jsonl") return worth_of_lines(read_all(path));
  // The time of writing stands in the page, as a date and as seconds, and so in the number of its scripts.
  if (name == "report.html")
    return std::regex_replace(
        read_all(path),
        std::regex(R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|"now":[\d.e+]+|nonce[-=]"?[0-9a-f]{32})"), "TIME");
  if (name == "amended.json") return stripped(json::parse(read_all(path), nullptr, false)).dump();
  return read_all(path);
}

// Times and hosts, logs of ranks, and the list of commands: whoever goes on has given one more.
bool says_nothing(const std::string& name) {
  return name == ".lock" || name.starts_with("rank-") || name == "commands.jsonl" ||
         name == "checksums.json" || name.starts_with("events.out.");
}

std::string kinds_of_damage_in_run(const std::string& run) {
  std::string damage;
  try {
    for (const CheckpointInfo& info : list_checkpoints(run)) {
      try {
        const OpenCheckpoint opened(info);
      } catch (const Error& error) {
        damage += std::string(error.what()) + "\n";
      }
    }
    read_best(run);
    published_step(run);
  } catch (const Error& error) {
    damage += std::string(error.what()) + "\n";
  }
  return damage;
}

// The process that is to be killed; the program itself if it has not started so many.
pid_t victim_of(pid_t program, int victim) {
  std::ifstream file("/proc/" + std::to_string(program) + "/task/" + std::to_string(program) + "/children");
  pid_t found = program;
  for (int i = 0; i < victim && file >> found;) ++i;
  return found;
}

// A process that was killed leaves those that it started to end by themselves. They are this process's then, which has
// asked for that: a container's first process may never take note of their ends.
void wait_for_group(pid_t group) {
  constexpr int kTries = 6000, kWait = 10'000;
  for (int i = 0;; ++i) {
    while (waitpid(-group, nullptr, WNOHANG) > 0) continue;
    if (kill(-group, 0) != 0 && errno == ESRCH) return;
    if (i == kTries) throw std::runtime_error("processes that the program started outlive it by a minute");
    usleep(kWait);
  }
}

}  // namespace

Workshop::Workshop(std::string folder) : folder_(fs::canonical(folder).string()) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fs::create_directories(work() + "/texts");
  fs::create_directories(work() + "/temporary");
  write_all(work() + "/text.txt", some_text());
  write_all(work() + "/texts/1.txt", some_text());
  write_all(work() + "/texts/2.txt", some_text().substr(100));
  write_all(work() + "/pictures.npy", some_pictures());
  write_all(work() + "/sounds.tar", archive_of("sound.wav", some_sound()));
  write_all(work() + "/text.toml", config("text", "text.txt", 64, ""));
  write_all(work() + "/texts.toml", config("text", "texts", 64, ""));
  write_all(work() + "/pictures.toml", config("image", "pictures.npy", 48, ""));
  write_all(work() + "/sound.toml", config("audio", "sounds.tar", 64, ""));
  for (const char* name :
       {"out.txt", "out.png", "out.wav", "again.txt", "curve.csv", "drawing.svg", "drawing.png", "reach.png",
        "entropy.csv", "entropy.html", "report.html", "made.toml", "preview.txt"})
    write_all(work() + "/" + name, "what was there before");
  for (const char* arguments :
       {"train text.toml --run base --quiet --set train.steps=6",
        "train pictures.toml --run painter --quiet --set train.steps=2",
        "train sound.toml --run singer --quiet --set train.steps=2", "compress base text.txt -o whole.lsc",
        "compress base text.txt --with-model -o alone.lsc",
        "sample base --length 150 --state half.state -o half.txt",
        "sample base --length 300 --resume half.state --branch 1 --state half2.state -o half.txt"}) {
    const Ended ended = run(arguments);
    if (ended.code != 0) throw std::runtime_error(std::string(arguments) + ": " + ended.err);
  }
  fs::remove_all(work() + "/base/pins");  // so that a job makes them
  fs::copy(work(), folder_ + "/template", fs::copy_options::recursive);
  jobs_ = {
      {"train", "train text.toml --run run --resume --quiet", "", "", {"run"}},
      {"train on", "train base --quiet --set train.steps=14", "", "", {"base"}},
      {"train in stages",
       "train text.toml --run run --resume --quiet --set train.decay=linear --set "
       "'train.context_schedule=16 until 0.5'",
       "",
       "",
       {"run"}},
      {"decode", "train texts.toml --run run --resume --quiet --set train.steps=2", "", "", {"run"}},
      {"decode sound", "train sound.toml --run run --resume --quiet --set train.steps=2", "", "", {"run"}},
      {"sample",
       "sample base --length 400 --seed 5 --state s --save-every 40 -o out.txt",
       "sample base --resume s -o out.txt",
       "s",
       {"out.txt", "s"}},
      {"paint", "sample painter -o out.png", "", "", {"out.png"}},
      {"sing", "sample singer --length 400 -o out.wav", "", "", {"out.wav"}},
      {"compress",
       "compress base text.txt -o c.lsc",
       "compress base text.txt -o c.lsc --force",
       "c.lsc",
       {"c.lsc"}},
      {"decompress", "decompress base whole.lsc --force -o again.txt", "", "", {"again.txt"}},
      {"curve", "eval base --max-bytes 600 --curve curve.csv", "", "", {"curve.csv"}},
      {"draw", "inspect text.toml --draw drawing.svg", "", "", {"drawing.svg"}},
      {"draw pixels", "inspect text.toml --draw drawing.png", "", "", {"drawing.png"}},
      {"draw reach", "inspect text.toml --draw-reach reach.png", "", "", {"reach.png"}},
      {"compress with model",
       "compress base text.txt --with-model -o m.lsc",
       "compress base text.txt --with-model -o m.lsc --force",
       "m.lsc",
       {"m.lsc"}},
      {"decompress alone", "decompress alone.lsc --force -o again.txt", "", "", {"again.txt"}},
      {"entropy", "eval base --max-bytes 600 --entropy entropy.csv", "", "", {"entropy.csv"}},
      {"entropy page", "eval base --max-bytes 600 --entropy entropy.html", "", "", {"entropy.html"}},
      {"report", "report base --samples 1 -o report.html", "", "", {"report.html"}},
      {"init", "init text.txt --force -o made.toml --minutes 0.1 --device cpu", "", "", {"made.toml"}},
      {"data", "data texts --preview preview.txt --set data.cache=cache", "", "", {"preview.txt"}},
      {"time", "inspect text.toml --time", "", "", {}},  // what it keeps is a measurement
  };
  const std::string ranks = "train text.toml --run run --resume --quiet --ranks 2";
  rank_jobs_ = {
      {"train on two ranks", ranks, "", "", {"run"}, 2},
      {"share an optimizer", ranks + " --set compute.shard_optimizer=true", "", "", {"run"}, 2},
      {"share sequences", ranks + " --parallel sequence=2 --set model.context=256", "", "", {"run"}, 2},
  };
  LONGSTRIDE_CHECK(jobs_.size() == kJobs, "{} jobs", jobs_.size());
}

void Workshop::restore() {
  fs::remove_all(work());
  fs::copy(folder_ + "/template", work(), fs::copy_options::recursive);
}

Ended Workshop::run(const std::string& arguments, const Disturbance& how, std::vector<Operation>* log) {
  const std::string err = folder_ + "/err.txt", log_path = folder_ + "/log.txt";
  fs::remove(log_path);
  std::vector<std::string> environment = {"OMP_NUM_THREADS=1", "HOME=" + folder_,
                                          "TMPDIR=" + work() + "/temporary", "PATH=/usr/bin:/bin",
                                          "FAULT_ROOT=" + work()};
  if (log != nullptr) environment.push_back("FAULT_LOG=" + log_path);
  if (how.at > 0) environment.push_back("FAULT_AT=" + std::to_string(how.at));
  if (!how.kind.empty()) environment.push_back("FAULT_KIND=" + how.kind);
  if (how.lasts) environment.push_back("FAULT_LASTS=1");
  if (how.rank != kAll) environment.push_back("FAULT_RANK=" + std::to_string(how.rank));
  if (!how.journal.empty()) {
    fs::remove(how.journal);
    environment.push_back("POWER_ROOT=" + work());
    environment.push_back("POWER_JOURNAL=" + how.journal);
  }
  std::vector<char*> pointers;
  for (std::string& entry : environment) pointers.push_back(entry.data());
  pointers.push_back(nullptr);
  // The shell itself is not to be disturbed.
  const std::string shim = how.journal.empty() ? LONGSTRIDE_FAULT_SHIM : LONGSTRIDE_POWER_SHIM;
  const std::string shell = "LD_PRELOAD=" + shim + " exec " LONGSTRIDE_BINARY " " + arguments;

  const auto begun = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    const int nothing = open("/dev/null", O_RDWR);
    const int complaints = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    dup2(nothing, STDIN_FILENO), dup2(nothing, STDOUT_FILENO), dup2(complaints, STDERR_FILENO);
    close(nothing), close(complaints);
    if (chdir(work().c_str()) == 0)
      execle("/bin/sh", "sh", "-c", shell.c_str(), static_cast<char*>(nullptr), pointers.data());
    _exit(126);
  }
  setpgid(child, child);  // whoever is first
  if (how.kill_after > 0) {
    usleep(static_cast<useconds_t>(how.kill_after));
    kill(how.victim == kAll ? -child : victim_of(child, how.victim), SIGKILL);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  wait_for_group(child);
  Ended ended;
  ended.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ended.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  ended.err = read_all(err);
  if (log == nullptr) return ended;
  log->clear();
  std::ifstream lines(log_path);
  for (std::string entry; std::getline(lines, entry);) {
    std::istringstream fields(entry);
    Operation operation;
    std::string count, rank;
    std::getline(fields, count, '\t');
    std::getline(fields, operation.call, '\t');
    std::getline(fields, operation.name, '\t');
    std::getline(fields, operation.site, '\t');
    std::getline(fields, rank, '\t');
    operation.number = std::stoll(count);
    if (!rank.empty()) operation.rank = std::stoi(rank);
    log->push_back(operation);
  }
  return ended;
}

Ended Workshop::go_on(const Job& job, const Disturbance& how) {
  const bool on = !job.go_on.empty() && fs::exists(work() + "/" + job.go_on_with);
  return run(on ? job.go_on : job.begin, how);
}

std::map<std::string, std::string> Workshop::worth(const Job& job) const {
  std::map<std::string, std::string> found;
  for (const std::string& output : job.outputs) {
    const fs::path path = fs::path(work()) / output;
    if (fs::is_directory(path)) {
      for (const auto& entry : fs::recursive_directory_iterator(path))
        if (entry.is_regular_file() && !says_nothing(entry.path().filename().string()))
          found[fs::relative(entry.path(), work()).string()] = worth_of(entry.path());
    } else if (fs::exists(path)) {
      found[output] = output == "s" ? "" : worth_of(path);  // what a state says of its file differs
    }
  }
  return found;
}

std::string Workshop::damage(const Job& job, const std::map<std::string, std::string>& old_worth,
                             const std::map<std::string, std::string>& new_worth) const {
  std::string damage;
  for (const auto& [name, content] : worth(job)) {
    const std::string last = fs::path(name).filename().string();
    if (last.starts_with(".tmp-") || name.find("/.tmp-") != std::string::npos) continue;
    const bool of_a_run = name.find('/') != std::string::npos;
    if (of_a_run) continue;
    const auto before = old_worth.find(name), after = new_worth.find(name);
    const bool old = before != old_worth.end() && before->second == content;
    const bool now = after != new_worth.end() && after->second == content;
    if (!old && !now) damage += name + " is neither the old nor the new one\n";
  }
  for (const auto& [name, content] : old_worth)
    if (name.find('/') == std::string::npos && !fs::exists(work() + "/" + name))
      damage += name + " is gone\n";
  for (const std::string& output : job.outputs)
    if (fs::is_directory(work() + "/" + output)) damage += kinds_of_damage_in_run(work() + "/" + output);
  return damage;
}

std::vector<std::string> Workshop::temporaries() const {
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(work())) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".tmp-") || name.ends_with(".partial") || name.starts_with("longstride-"))
      found.push_back(fs::relative(entry.path(), work()).string());
  }
  return found;
}

std::map<std::string, std::string> without_older_checkpoints(std::map<std::string, std::string> worth) {
  constexpr std::string_view kFolder = "run/checkpoints/step-";
  std::string newest;
  for (const auto& [name, content] : worth)
    if (name.starts_with(kFolder)) newest = name.substr(0, name.find('/', kFolder.size()) + 1);
  std::erase_if(worth, [&](const auto& file) {
    return file.first.starts_with(kFolder) && !file.first.starts_with(newest);
  });
  return worth;
}

std::string role_of(const std::string& name) {
  static const std::pair<std::regex, const char*> kRules[] = {
      {std::regex(R"(\./)"), ""},
      {std::regex(R"(/#\d+)"), "/unnamed"},
      {std::regex(R"( \(deleted\)$)"), ""},
      {std::regex(R"(\.tmp-(.+)-\d+-\d+)"), "$1"},
      {std::regex(R"(^(run|base|painter|singer)(?=/|$))"), "RUN"},
      {std::regex(R"(step-\d+)"), "step-N"},
      {std::regex(R"(events\.out\.tfevents\..*)"), "events"},
      {std::regex(R"([0-9a-f]{32}(\.[0-9a-f]{16}\.partial)?)"), "HASH"},
      {std::regex(R"(longstride-\w{6})"), "unnamed"},
      {std::regex(R"(step-N-[0-9a-f]{16})"), "step-N-DIGEST"},
  };
  std::string role = name;
  for (const auto& [pattern, replacement] : kRules) role = std::regex_replace(role, pattern, replacement);
  return role;
}

}  // namespace longstride::reliability
