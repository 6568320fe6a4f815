#include "longstride/sweep/child.h"

#include <algorithm>
#include <csignal>
#include <string_view>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/text.h"

namespace longstride {

namespace {

std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& own) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::none_of(own.begin(), own.end(), [&](const auto& mine) {
          return std::string_view(*entry).starts_with(mine.first + "=");
        }))
      all.emplace_back(*entry);
  for (const auto& [name, value] : own) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the new process, where other threads' locks may be held for ever: nothing is allocated.
[[noreturn]] void become(char** words, char** environment, int input, int log, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  // This thread leaves its signals to another one, which the child does not have.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(input, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execve("/proc/self/exe", words, environment);
  _exit(127);
}

}  // namespace

Child::Child(const ChildCommand& command) {
  std::vector<std::string> words{"longstride"};
  words.insert(words.end(), command.words.begin(), command.words.end());
  std::vector<std::string> variables = environment_with(command.environment);
  std::vector<char*> word_list = pointers_to(words), variable_list = pointers_to(variables);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  const int log = despite_signals([&] { return open(command.log.c_str(), kFlags, 0666); });
  LONGSTRIDE_CHECK(log >= 0, "cannot open {}: {}", command.log, last_system_error());
  const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  process_ = fork();
  if (process_ == 0) become(word_list.data(), variable_list.data(), input, log, parent);
  const std::string why = last_system_error();
  close(log);
  if (input >= 0) close(input);
  LONGSTRIDE_CHECK(process_ > 0, "cannot start a process: {}", why);
}

Child::~Child() {
  if (process_ <= 0) return;
  kill(process_, SIGTERM);
  despite_signals([&] { return waitpid(process_, nullptr, 0); });
}

std::optional<int> Child::ended() {
  if (process_ <= 0) return {};
  int status = 0;
  if (waitpid(process_, &status, WNOHANG) != process_) return {};
  process_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void Child::send(int signal) const {
  if (process_ > 0) kill(process_, signal);
}

std::vector<std::string> one_gpu_each(int64_t count, const char* visible) {
  const std::vector<std::string> names =
      visible != nullptr ? split(visible, ',') : std::vector<std::string>();
  std::vector<std::string> gpus;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i)
    gpus.push_back(i < names.size() ? std::string(trim(names[i])) : fmt::format("{}", i));
  return gpus;
}

}  // namespace longstride
