// Ranks joined by MPI. Sums: each rank receives every rank's part of its shard, adds them up in the order of
// the ranks and sends the result round, so that no rank and no topology adds in another order.
#include <algorithm>
#include <numeric>
#include <vector>

#include <mpi.h>

#include "longstride/base/check.h"
#include "longstride/base/threads.h"
#include "longstride/dist/launch.h"

namespace longstride {

namespace {

void check(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail("MPI: {} in {}", std::string(text, static_cast<size_t>(length)), call);
}

class Mpi : public Comm {
 public:
  explicit Mpi(const Launch& launch) {
    // Calls come from one thread at a time.
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
    LONGSTRIDE_CHECK(
        size_ == launch.size,
        "{} started {} processes, but MPI joins {}: the launcher belongs to another MPI than this "
        "longstride was built with",
        name_of(launch.launcher), launch.size, size_);
  }
  ~Mpi() override { MPI_Finalize(); }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(const Tensor& tensor) override {
    LONGSTRIDE_CHECK(tensor.contiguous(), "sum over ranks of tensor {}: not contiguous", tensor.describe());
    float* const values = tensor.as<float>();
    for (int64_t begin = 0; begin < tensor.count(); begin += kPiece)
      sum_piece(values + begin, std::min(kPiece, tensor.count() - begin));
  }

  void broadcast(void* data, int64_t bytes) override {
    for (int64_t begin = 0; begin < bytes; begin += kMostBytes)
      check(MPI_Bcast(static_cast<char*>(data) + begin, static_cast<int>(std::min(kMostBytes, bytes - begin)),
                      MPI_BYTE, 0, MPI_COMM_WORLD),
            "MPI_Bcast");
  }

  std::vector<std::string> gather(std::string_view mine) override {
    std::vector<int> sizes(static_cast<size_t>(size_)), offsets(static_cast<size_t>(size_));
    const int own = static_cast<int>(mine.size());
    check(MPI_Allgather(&own, 1, MPI_INT, sizes.data(), 1, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
    std::exclusive_scan(sizes.begin(), sizes.end(), offsets.begin(), 0);
    std::vector<char> all(static_cast<size_t>(offsets.back() + sizes.back()));
    check(MPI_Allgatherv(mine.data(), own, MPI_CHAR, all.data(), sizes.data(), offsets.data(), MPI_CHAR,
                         MPI_COMM_WORLD),
          "MPI_Allgatherv");
    std::vector<std::string> parts;
    for (int r = 0; r < size_; ++r)
      parts.emplace_back(all.data() + offsets[static_cast<size_t>(r)], sizes[static_cast<size_t>(r)]);
    return parts;
  }

  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    std::vector<MPI_Request> requests;
    for (const Incoming& piece : in)
      for_each_message(piece.bytes, [&](int64_t begin, int count) {
        check(MPI_Irecv(static_cast<char*>(piece.data) + begin, count, MPI_BYTE, piece.rank, 0,
                        MPI_COMM_WORLD, &requests.emplace_back()),
              "MPI_Irecv");
      });
    for (const Outgoing& piece : out)
      for_each_message(piece.bytes, [&](int64_t begin, int count) {
        check(MPI_Isend(static_cast<const char*>(piece.data) + begin, count, MPI_BYTE, piece.rank, 0,
                        MPI_COMM_WORLD, &requests.emplace_back()),
              "MPI_Isend");
      });
    check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
          "MPI_Waitall");
  }

 private:
  // MPI counts in 32 bits.
  template <class Message>
  static void for_each_message(int64_t bytes, const Message& message) {
    for (int64_t begin = 0; begin < bytes; begin += kMostBytes)
      message(begin, static_cast<int>(std::min(kMostBytes, bytes - begin)));
  }

  static constexpr int64_t kPiece = int64_t{1} << 22;  // elements summed at a time
  static constexpr int64_t kMostBytes = int64_t{1} << 30;

  void sum_piece(float* values, int64_t count) {
    // Shard r is [begin(r), begin(r + 1)).
    const int64_t shard = (count + size_ - 1) / size_;
    const auto begin = [&](int r) { return std::min(count, r * shard); };
    std::vector<int> counts, offsets, own_counts, own_offsets;
    const int64_t own = begin(rank_ + 1) - begin(rank_);
    for (int r = 0; r < size_; ++r) {
      counts.push_back(static_cast<int>(begin(r + 1) - begin(r)));
      offsets.push_back(static_cast<int>(begin(r)));
      own_counts.push_back(static_cast<int>(own));
      own_offsets.push_back(static_cast<int>(r * own));
    }
    parts_.resize(static_cast<size_t>(own * size_));
    check(MPI_Alltoallv(values, counts.data(), offsets.data(), MPI_FLOAT, parts_.data(), own_counts.data(),
                        own_offsets.data(), MPI_FLOAT, MPI_COMM_WORLD),
          "MPI_Alltoallv");
    float* const sums = parts_.data();
    constexpr int64_t kChunk = int64_t{1} << 14;
    parallel_for((own + kChunk - 1) / kChunk, [&](int64_t chunk) {
      const int64_t end = std::min(own, (chunk + 1) * kChunk);
      for (int r = 1; r < size_; ++r)
        for (int64_t i = chunk * kChunk; i < end; ++i) sums[i] += sums[r * own + i];
    });
    check(MPI_Allgatherv(sums, static_cast<int>(own), MPI_FLOAT, values, counts.data(), offsets.data(),
                         MPI_FLOAT, MPI_COMM_WORLD),
          "MPI_Allgatherv");
  }

  int rank_ = 0, size_ = 1;
  std::vector<float> parts_;  // (size, shard)
};

}  // namespace

bool has_mpi() { return true; }
std::unique_ptr<Comm> join_mpi(const Launch& launch) { return std::make_unique<Mpi>(launch); }

}  // namespace longstride
