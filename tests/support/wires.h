// Ranks that are threads of one process, joined by queues.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/dist/device_comm.h"

namespace longstride::support {

// What has been sent and not yet received.
class Wires {
 public:
  void send(int from, int to, const void* data, int64_t bytes) {
    const std::lock_guard lock(mutex_);
    const char* const begin = static_cast<const char*>(data);
    sent_ += bytes;
    waiting_[{from, to}].emplace_back(begin, begin + bytes);
    changed_.notify_all();
  }
  void receive(int from, int to, void* data, int64_t bytes) {
    std::unique_lock lock(mutex_);
    std::deque<std::vector<char>>& queue = waiting_[{from, to}];
    changed_.wait(lock, [&] { return !queue.empty(); });
    ASSERT_EQ(static_cast<int64_t>(queue.front().size()), bytes);
    std::copy(queue.front().begin(), queue.front().end(), static_cast<char*>(data));
    queue.pop_front();
  }
  int64_t sent() const { return sent_; }
  bool all_received() const {
    for (const auto& [ends, queue] : waiting_)
      if (!queue.empty()) return false;
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t sent_ = 0;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> waiting_;
};

class ByWires : public DeviceComm {
 public:
  ByWires(Wires& wires, int rank) : wires_(wires), rank_(rank) {}
  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    if (abandoned_) return;
    for (const Outgoing& piece : out) wires_.send(rank_, piece.rank, piece.data, piece.bytes);
    for (const Incoming& piece : in) wires_.receive(piece.rank, rank_, piece.data, piece.bytes);
  }
  std::string trouble() override { return {}; }
  void abandon() noexcept override { abandoned_ = true; }

 private:
  Wires& wires_;
  int rank_;
  bool abandoned_ = false;
};

}  // namespace longstride::support
