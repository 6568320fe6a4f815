#include "longstride/dist/spawn.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/say.h"

namespace longstride {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kToEnd{10}, kToDie{5};

// A port of this host that nobody listens at.
int free_port() {
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool found = probe >= 0 && bind(probe, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     getsockname(probe, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  const std::string why = last_system_error();
  if (probe >= 0) close(probe);
  LONGSTRIDE_CHECK(found, "no port for the ranks to meet at: {}", why);
  return ntohs(address.sin_port);
}

// Of those that this process may use, the part of one rank; all where there are fewer than ranks.
void take_share_of_processors(int rank, int ranks) {
  cpu_set_t all, share;
  CPU_ZERO(&all);
  CPU_ZERO(&share);
  if (sched_getaffinity(0, sizeof(all), &all) != 0) return;
  const int count = CPU_COUNT(&all);
  if (count < ranks) return;
  for (int cpu = 0, number = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    if (number >= rank * count / ranks && number < (rank + 1) * count / ranks) CPU_SET(cpu, &share);
    ++number;
  }
  sched_setaffinity(0, sizeof(share), &share);
}

// This process's environment with the rank's variables.
std::vector<std::string> environment_of(int rank, int ranks, int port) {
  const std::array<std::pair<const char*, std::string>, 6> own{{{"RANK=", std::to_string(rank)},
                                                                {"LOCAL_RANK=", std::to_string(rank)},
                                                                {"WORLD_SIZE=", std::to_string(ranks)},
                                                                {"MASTER_ADDR=", "127.0.0.1"},
                                                                {"MASTER_PORT=", std::to_string(port)},
                                                                {"TORCHELASTIC_USE_AGENT_STORE=", "False"}}};
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::none_of(own.begin(), own.end(),
                     [&](const auto& mine) { return std::string_view(*entry).starts_with(mine.first); }))
      all.emplace_back(*entry);
  for (const auto& [name, value] : own) all.push_back(name + value);
  return all;
}

// In the new process, where other threads' locks may be held for ever: nothing is allocated.
[[noreturn]] void become_rank(int rank, int ranks, char** arguments, char** environment) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  take_share_of_processors(rank, ranks);
  // This thread leaves its signals to another one, which the rank does not have.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve("/proc/self/exe", arguments, environment);
  _exit(127);
}

// While one lives, signals to this process alone are noted, to be passed on; a terminal's reach the ranks by
// themselves. What is ignored stays so.
class SignalsPassedOn {
 public:
  SignalsPassedOn() {
    for (size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], nullptr, &before_[i]);
      if (before_[i].sa_handler == SIG_IGN) continue;
      struct sigaction action {};
      action.sa_flags = SA_SIGINFO | SA_RESTART;
      action.sa_sigaction = [](int signal, siginfo_t* from, void*) {
        if (from->si_code <= 0) noted = signal;
      };
      sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~SignalsPassedOn() {
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  SignalsPassedOn(const SignalsPassedOn&) = delete;
  SignalsPassedOn& operator=(const SignalsPassedOn&) = delete;

  // The last one since the last call; 0: none.
  static int take() { return noted.exchange(0); }

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGUSR1};
  static inline std::atomic<int> noted{0};
  std::array<struct sigaction, kSignals.size()> before_{};
};

void signal_all(const std::vector<pid_t>& ranks, int signal) {
  for (const pid_t rank : ranks)
    if (rank > 0) kill(rank, signal);
}

}  // namespace

int run_ranks(int ranks, char** arguments) {
  const int port = free_port();
  const SignalsPassedOn signals;
  std::vector<pid_t> processes;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::string> variables = environment_of(rank, ranks, port);
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) become_rank(rank, ranks, arguments, environment.data());
    if (child < 0) {
      const std::string why = last_system_error();
      signal_all(processes, SIGKILL);
      fail("cannot start rank {} of {}: {}", rank, ranks, why);
    }
    processes.push_back(child);
  }
  int of_rank_0 = 0, left = ranks;
  bool failed = false, asked = false, forced = false;
  Clock::time_point since;
  while (left > 0) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, WNOHANG);
    if (ended > 0) {
      for (int rank = 0; rank < ranks; ++rank) {
        if (processes[static_cast<size_t>(rank)] != ended) continue;
        processes[static_cast<size_t>(rank)] = 0;
        --left;
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (WIFSIGNALED(status) && !asked)
          say("longstride: rank {} was ended by signal {} ({})", rank, WTERMSIG(status),
              strsignal(WTERMSIG(status)));
        if (rank == 0) of_rank_0 = code;
        if (code != 0 && !failed) failed = true, since = Clock::now();
      }
      continue;
    }
    if (failed && !asked && Clock::now() - since > kToEnd) asked = true, signal_all(processes, SIGTERM);
    if (failed && !forced && Clock::now() - since > kToEnd + kToDie)
      forced = true, signal_all(processes, SIGKILL);
    if (const int signal = SignalsPassedOn::take()) signal_all(processes, signal);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return of_rank_0 != 0 ? of_rank_0 : failed ? 1 : 0;
}

}  // namespace longstride
