// Ranks joined by sockets, each to rank 0: for those of torchrun and of our own launcher. Rank 0 adds up and
// sends round, which is enough for orders and small models; MPI does better between machines.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/dist/launch.h"

namespace longstride {

namespace {

using Clock = std::chrono::steady_clock;

class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  int descriptor_;
};

// A host that vanishes without a word is found out in 25 seconds.
void prepare(const Socket& socket) {
  const auto set = [&](int level, int option, int value) {
    setsockopt(socket.get(), level, option, &value, sizeof(value));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

bool send_all(const Socket& socket, const void* data, int64_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(socket.get(), at, static_cast<size_t>(bytes), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent, bytes -= sent;
  }
  return true;
}

bool receive_all(const Socket& socket, void* data, int64_t bytes) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t received = recv(socket.get(), at, static_cast<size_t>(bytes), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    at += received, bytes -= received;
  }
  return true;
}

// What a rank says when it comes.
struct Greeting {
  char name[16] = "longstride rank";
  int32_t rank = 0, size = 0;
};

int milliseconds_until(Clock::time_point end) {
  return static_cast<int>(std::max<int64_t>(
      0, std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count()));
}

class Addresses {
 public:
  explicit Addresses(const Meeting& meeting) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    const int status =
        getaddrinfo(meeting.host.c_str(), std::to_string(meeting.port).c_str(), &hints, &first_);
    LONGSTRIDE_CHECK(status == 0, "MASTER_ADDR = {} is no host that can be found: {}", meeting.host,
                     gai_strerror(status));
  }
  ~Addresses() { freeaddrinfo(first_); }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;
  const addrinfo* first() const { return first_; }

 private:
  addrinfo* first_ = nullptr;
};

std::string missing_ranks(const std::vector<Socket>& peers) {
  std::string text;
  int count = 0;
  for (size_t rank = 1; rank < peers.size(); ++rank)
    if (!peers[rank]) text += fmt::format("{}{}", count++ > 0 ? ", " : "", rank);
  return (count == 1 ? "rank " : "ranks ") + text;
}

class Tcp : public Comm {
 public:
  Tcp(const Launch& launch, const Meeting& meeting) : rank_(launch.rank), size_(launch.size), peers_(size_) {
    const Addresses addresses(meeting);
    const Clock::time_point end = Clock::now() + std::chrono::milliseconds(meeting.patience_ms);
    if (rank_ == 0)
      wait_for_all(addresses, meeting, end);
    else
      come_to_rank_0(addresses, meeting, end);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(const Tensor& tensor) override {
    LONGSTRIDE_CHECK(tensor.contiguous(), "sum over ranks of tensor {}: not contiguous", tensor.describe());
    float* const values = tensor.as<float>();
    for (int64_t begin = 0; begin < tensor.count(); begin += kPiece) {
      const int64_t count = std::min(kPiece, tensor.count() - begin),
                    bytes = count * static_cast<int64_t>(sizeof(float));
      if (rank_ > 0) {
        send_to(0, values + begin, bytes);
        receive_from(0, values + begin, bytes);
        continue;
      }
      part_.resize(static_cast<size_t>(count));
      for (int rank = 1; rank < size_; ++rank) {
        receive_from(rank, part_.data(), bytes);
        for (int64_t i = 0; i < count; ++i) values[begin + i] += part_[static_cast<size_t>(i)];
      }
      for (int rank = 1; rank < size_; ++rank) send_to(rank, values + begin, bytes);
    }
  }

  void broadcast(void* data, int64_t bytes) override {
    if (rank_ > 0) return receive_from(0, data, bytes);
    for (int rank = 1; rank < size_; ++rank) send_to(rank, data, bytes);
  }

  std::vector<std::string> gather(std::string_view mine) override {
    if (rank_ > 0) {
      send_text(0, mine);
      return unpacked(receive_text(0));
    }
    // In one message to each: with many ranks, so many small ones would take longer than a step.
    std::string all = packed(mine);
    for (int rank = 1; rank < size_; ++rank) all += packed(receive_text(rank));
    for (int rank = 1; rank < size_; ++rank) send_text(rank, all);
    return unpacked(all);
  }

  void look() override {
    for (int rank = 0; rank < size_; ++rank) {
      if (!peer(rank)) continue;
      char byte = 0;
      errno = 0;
      const ssize_t waiting = recv(peer(rank).get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (waiting == 0 || (waiting < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        lost(rank);
    }
  }

 private:
  static constexpr int64_t kPiece = int64_t{1} << 20;  // elements summed at a time

  [[noreturn]] static void lost(int rank) {
    throw RankLost(
        fmt::format("rank {} is gone{}", rank, errno == 0 ? std::string() : ": " + last_system_error()));
  }
  const Socket& peer(int rank) const { return peers_[static_cast<size_t>(rank)]; }
  void send_to(int rank, const void* data, int64_t bytes) const {
    if (!send_all(peer(rank), data, bytes)) lost(rank);
  }
  void receive_from(int rank, void* data, int64_t bytes) const {
    errno = 0;
    if (!receive_all(peer(rank), data, bytes)) lost(rank);
  }
  // A text behind its length.
  static std::string packed(std::string_view text) {
    const auto bytes = static_cast<int64_t>(text.size());
    return std::string(reinterpret_cast<const char*>(&bytes), sizeof(bytes)).append(text);
  }
  std::vector<std::string> unpacked(std::string_view all) const {
    std::vector<std::string> texts;
    while (!all.empty()) {
      int64_t bytes = 0;
      std::memcpy(&bytes, all.data(), sizeof(bytes));
      texts.emplace_back(all.substr(sizeof(bytes), static_cast<size_t>(bytes)));
      all.remove_prefix(sizeof(bytes) + static_cast<size_t>(bytes));
    }
    return texts;
  }
  void send_text(int rank, std::string_view text) const {
    const std::string message = packed(text);
    send_to(rank, message.data(), static_cast<int64_t>(message.size()));
  }
  std::string receive_text(int rank) const {
    int64_t bytes = 0;
    receive_from(rank, &bytes, sizeof(bytes));
    std::string text(static_cast<size_t>(bytes), '\0');
    receive_from(rank, text.data(), bytes);
    return text;
  }

  void wait_for_all(const Addresses& addresses, const Meeting& meeting, Clock::time_point end) {
    const addrinfo& at = *addresses.first();
    const Socket listener(socket(at.ai_family, at.ai_socktype | SOCK_CLOEXEC, at.ai_protocol));
    const int reuse = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
    LONGSTRIDE_CHECK(
        bind(listener.get(), at.ai_addr, at.ai_addrlen) == 0 && listen(listener.get(), size_) == 0,
        "rank 0 cannot meet the others at {}:{}: {}; set MASTER_PORT to another port", meeting.host,
        meeting.port, last_system_error());
    for (int there = 1; there < size_;) {
      pollfd waiting{listener.get(), POLLIN, 0};
      const int ready = poll(&waiting, 1, milliseconds_until(end));
      if (ready < 0 && errno == EINTR) continue;
      LONGSTRIDE_CHECK(ready > 0, "{} of {} did not come to {}:{} within {} s", missing_ranks(peers_), size_,
                       meeting.host, meeting.port, meeting.patience_ms / 1000);
      Socket guest(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!guest) continue;
      prepare(guest);
      Greeting greeting;
      // Strangers are let go.
      if (!receive_all(guest, &greeting, sizeof(greeting)) ||
          std::memcmp(greeting.name, Greeting{}.name, sizeof(greeting.name)) != 0)
        continue;
      LONGSTRIDE_CHECK(
          greeting.size == size_ && greeting.rank > 0 && greeting.rank < size_ && !peer(greeting.rank),
          "a rank {} of {} came to rank 0 of {}, which has it already or does not await it", greeting.rank,
          greeting.size, size_);
      peers_[static_cast<size_t>(greeting.rank)] = std::move(guest);
      ++there;
    }
  }

  void come_to_rank_0(const Addresses& addresses, const Meeting& meeting, Clock::time_point end) {
    for (;;) {
      for (const addrinfo* at = addresses.first(); at != nullptr; at = at->ai_next) {
        Socket tried(socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
        if (!tried || connect(tried.get(), at->ai_addr, at->ai_addrlen) != 0) continue;
        prepare(tried);
        Greeting greeting;
        greeting.rank = rank_, greeting.size = size_;
        if (!send_all(tried, &greeting, sizeof(greeting))) continue;
        peers_[0] = std::move(tried);
        return;
      }
      LONGSTRIDE_CHECK(Clock::now() < end, "rank 0 does not answer rank {} at {}:{} within {} s: {}", rank_,
                       meeting.host, meeting.port, meeting.patience_ms / 1000, last_system_error());
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  int rank_, size_;
  std::vector<Socket> peers_;  // on rank 0 by rank, on the others that to rank 0 alone
  std::vector<float> part_;
};

}  // namespace

std::unique_ptr<Comm> join_tcp(const Launch& launch, const Meeting& meeting) {
  return std::make_unique<Tcp>(launch, meeting);
}

}  // namespace longstride
