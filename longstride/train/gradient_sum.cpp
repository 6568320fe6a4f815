#include "longstride/train/gradient_sum.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/device/memory.h"
#include "longstride/dist/device_comm.h"
#include "longstride/ops/ordered_sum.h"

namespace longstride {

namespace {

using Clock = std::chrono::steady_clock;

// Elements that travel together. Within a machine it is all of them, at the end: its wires are so fast that NCCL's
// kernels, which take processors from the backward pass, cost more beside it than after it. Between machines it
// is enough for messages that use the wires well (a shard is one), and few enough that little is left to send when
// the backward pass ends.
constexpr int64_t kLeastPiece = int64_t{4} << 20, kShard = int64_t{64} << 10;
int64_t piece_between_machines(int ranks) { return std::max(kLeastPiece, ranks * kShard); }

// What NCCL takes for itself, as measured with two ranks on H200.
constexpr int64_t kOfNccl = int64_t{1} << 30;
constexpr std::chrono::milliseconds kBetweenLooks{50};

// The shard of each rank in a piece; some may be empty.
class Shards {
 public:
  explicit Shards(std::vector<int64_t> begins) : begins_(std::move(begins)) {}
  // Equal ones, of whole lines of memory.
  Shards(int64_t begin, int64_t end, int ranks) {
    const int64_t size = ((end - begin + ranks - 1) / ranks + 63) / 64 * 64;
    for (int rank = 0; rank <= ranks; ++rank) begins_.push_back(std::min(end, begin + rank * size));
  }
  int64_t begin(int rank) const { return begins_[static_cast<size_t>(rank)]; }
  int64_t count(int rank) const { return begin(rank + 1) - begin(rank); }
  int64_t largest() const {
    int64_t most = 0;
    for (size_t i = 1; i < begins_.size(); ++i) most = std::max(most, begins_[i] - begins_[i - 1]);
    return most;
  }

 private:
  std::vector<int64_t> begins_;  // ranks + 1
};

// Memory of the CPU, by the ranks' own connection. All ranks have all sums, also where shares would do.
class OnCpu : public GradientSum {
 public:
  OnCpu(Comm& comm, const Tensor& gradients) : comm_(comm), gradients_(gradients) {}

  void finish(UpdateControl* control) override {
    comm_.sum(gradients_);
    const double own = control->losses;
    double losses = 0;
    for (const std::string& of_rank : comm_.gather({reinterpret_cast<const char*>(&own), sizeof(own)})) {
      double sum = 0;
      std::memcpy(&sum, of_rank.data(), sizeof(sum));
      losses += sum;
    }
    control->losses = losses;
  }
  void wait() override {}

 private:
  Comm& comm_;
  Tensor gradients_;
};

// What OnDevices needs of the device's memory.
struct Room {
  Tensor parts;              // (others, shard): those of the others, in their order
  double *losses, *nothing;  // one for each rank; not a number
};

Room allocate(Arena& arena, int ranks, int64_t shard) {
  Room room;
  room.parts = arena.allocate(DType::f32, {ranks - 1, shard});
  const auto doubles = [&] {
    return static_cast<double*>(
        arena.allocate(DType::u8, {ranks * static_cast<int64_t>(sizeof(double))}).data);
  };
  room.losses = doubles();
  room.nothing = doubles();
  return room;
}

int64_t room_bytes(Device device, int ranks, int64_t shard) {
  Arena measure = Arena::measuring(device);
  allocate(measure, ranks, shard);
  return measure.peak();
}

// Of each piece, every rank receives all parts of its shard, adds them up and sends the sum round: as many bytes
// as a ring would take, and the same bits whatever connects the ranks. Pieces go by a second stream. Where the ranks
// have shares of their own, the sums stay with them.
class OnDevices : public GradientSum {
 public:
  OnDevices(Comm& comm, std::shared_ptr<DeviceComm> devices, Device device, const Tensor& gradients,
            int64_t piece, std::vector<int64_t> shares)
      : comm_(comm),
        devices_(std::move(devices)),
        device_(device),
        gradients_(gradients),
        shares_(std::move(shares)),
        piece_(shares_.empty() ? std::min(piece, gradients.count()) : gradients.count()),
        side_(backend(device).side_stream(1)),
        arena_(device, room_bytes(device, comm.size(), shards_of(0, piece_).largest())),
        room_(allocate(arena_, comm.size(), shards_of(0, piece_).largest())) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (int rank = 0; rank < comm.size(); ++rank)
      backend(device).copy(room_.nothing + rank, &nan, sizeof(nan));
  }

  void ready(int64_t begin, int64_t end) override {
    if (begin == end || all_at_once()) return;
    if (end != pending_begin_) {
      flush();
      pending_end_ = end;
    }
    pending_begin_ = begin;
    if (pending_end_ - pending_begin_ >= piece_) flush();
  }

  void finish(UpdateControl* control) override {
    if (all_at_once()) {
      sum(0, gradients_.count());
      exchange_losses(control);
    } else {
      flush();
      side_->follow();
      side_->run([&] { exchange_losses(control); });
      side_->mark(0);
      side_->await(0);
    }
    run(OpContext{device_, nullptr}, SumLosses{room_.losses, comm_.size(), control});
  }

  void wait() override {
    Clock::time_point looked = Clock::now();
    while (backend(device_).busy()) {
      if (Clock::now() - looked < kBetweenLooks) continue;
      looked = Clock::now();
      try {
        comm_.look();
        const std::string trouble = devices_->trouble();
        if (!trouble.empty()) throw RankLost(trouble);
      } catch (const RankLost&) {
        devices_->abandon();
        backend(device_).synchronize();
        throw;
      }
    }
    backend(device_).synchronize();
  }

  void abandon() noexcept override { devices_->abandon(); }

 private:
  bool all_at_once() const { return piece_ == gradients_.count(); }
  Shards shards_of(int64_t begin, int64_t end) const {
    return shares_.empty() ? Shards(begin, end, comm_.size()) : Shards(shares_);
  }

  void flush() {
    // From the back, as they became ready.
    while (pending_end_ > pending_begin_) {
      const int64_t begin = std::max(pending_begin_, pending_end_ - piece_);
      side_->follow();
      side_->run([&] { sum(begin, pending_end_); });
      pending_end_ = begin;
    }
  }

  float* at(int64_t element) const { return static_cast<float*>(gradients_.data) + element; }

  void sum(int64_t begin, int64_t end) {
    const Shards shards = shards_of(begin, end);
    const int own = comm_.rank();
    const int64_t count = shards.count(own);
    const auto bytes_of = [&](int rank) { return shards.count(rank) * static_cast<int64_t>(sizeof(float)); };
    std::vector<Outgoing> out;
    std::vector<Incoming> in;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      if (rank == own) continue;
      if (bytes_of(rank) > 0) out.push_back({rank, at(shards.begin(rank)), bytes_of(rank)});
      if (count > 0)
        in.push_back(
            {rank, room_.parts.rows(rank < own ? rank : rank - 1, comm_.size() - 1).data, bytes_of(own)});
    }
    devices_->exchange(out, in);
    if (count > 0)
      run(OpContext{device_, nullptr},
          OrderedSum{room_.parts.columns(0, count), own,
                     Tensor(at(shards.begin(own)), DType::f32, {count}, device_.kind)});
    if (!shares_.empty()) return;
    out.clear(), in.clear();
    for (int rank = 0; rank < comm_.size(); ++rank) {
      if (rank == own) continue;
      if (count > 0) out.push_back({rank, at(shards.begin(own)), bytes_of(own)});
      if (bytes_of(rank) > 0) in.push_back({rank, at(shards.begin(rank)), bytes_of(rank)});
    }
    devices_->exchange(out, in);
  }

  // They come last. If the exchange is abandoned before, a loss stays that is no number, and with that the
  // update changes nothing.
  void exchange_losses(UpdateControl* control) {
    const Backend& device = backend(device_);
    device.copy(room_.losses, room_.nothing, comm_.size() * static_cast<int64_t>(sizeof(double)));
    device.copy(room_.losses + comm_.rank(), &control->losses, sizeof(double));
    std::vector<Outgoing> out;
    std::vector<Incoming> in;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      if (rank == comm_.rank()) continue;
      out.push_back({rank, &control->losses, sizeof(double)});
      in.push_back({rank, room_.losses + rank, sizeof(double)});
    }
    devices_->exchange(out, in);
  }

  Comm& comm_;
  std::shared_ptr<DeviceComm> devices_;
  Device device_;
  Tensor gradients_;
  std::vector<int64_t> shares_;  // empty: none
  int64_t piece_;
  std::unique_ptr<SideStream> side_;
  Arena arena_;
  Room room_;
  int64_t pending_begin_ = 0, pending_end_ = 0;  // ready, and not sent yet
};

}  // namespace

std::unique_ptr<GradientSum> gradient_sum(Comm& comm, std::shared_ptr<DeviceComm> devices, Device device,
                                          const Tensor& flat_gradients, std::vector<int64_t> shares) {
  if (device.kind == DeviceKind::cpu) return std::make_unique<OnCpu>(comm, flat_gradients);
  const int64_t piece = on_one_machine(comm) ? flat_gradients.count() : piece_between_machines(comm.size());
  return gradient_sum_of_devices(comm, std::move(devices), device, flat_gradients, piece, std::move(shares));
}

std::unique_ptr<GradientSum> gradient_sum_of_devices(Comm& comm, std::shared_ptr<DeviceComm> devices,
                                                     Device device, const Tensor& flat_gradients,
                                                     int64_t piece, std::vector<int64_t> shares) {
  return std::make_unique<OnDevices>(comm, std::move(devices), device, flat_gradients, piece,
                                     std::move(shares));
}

int64_t gradient_sum_bytes(Device device, int ranks, int64_t gradients) {
  if (ranks == 1 || device.kind == DeviceKind::cpu) return 0;
  return room_bytes(device, ranks, Shards(0, gradients, ranks).largest()) + kOfNccl;
}

}  // namespace longstride
