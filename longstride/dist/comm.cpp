#include "longstride/dist/comm.h"

#include <cstring>

#include "longstride/base/check.h"

namespace longstride {

namespace {

class Alone : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void sum(const Tensor&) override {}
  void broadcast(void*, int64_t) override {}
  std::vector<std::string> gather(std::string_view mine) override { return {std::string(mine)}; }
};

}  // namespace

void Comm::exchange(std::span<const Outgoing> out, std::span<const Incoming> in) {
  // Each piece behind its rank and length.
  struct Head {
    int64_t rank, bytes;
  };
  std::string mine;
  for (const Outgoing& piece : out) {
    const Head head{piece.rank, piece.bytes};
    mine.append(reinterpret_cast<const char*>(&head), sizeof(head));
    mine.append(static_cast<const char*>(piece.data), static_cast<size_t>(piece.bytes));
  }
  const std::vector<std::string> all = gather(mine);
  std::vector<size_t> read(all.size());
  for (const Incoming& piece : in) {
    const std::string& from = all[static_cast<size_t>(piece.rank)];
    size_t& at = read[static_cast<size_t>(piece.rank)];
    for (;;) {
      LONGSTRIDE_CHECK(at + sizeof(Head) <= from.size(), "rank {} sent less than rank {} awaits", piece.rank,
                       rank());
      Head head{};
      std::memcpy(&head, from.data() + at, sizeof(head));
      at += sizeof(head) + static_cast<size_t>(head.bytes);
      if (head.rank != rank()) continue;
      LONGSTRIDE_CHECK(head.bytes == piece.bytes, "rank {} sent {} bytes, rank {} awaits {}", piece.rank,
                       head.bytes, rank(), piece.bytes);
      std::memcpy(piece.data, from.data() + at - head.bytes, static_cast<size_t>(head.bytes));
      break;
    }
  }
}

std::unique_ptr<Comm> alone() { return std::make_unique<Alone>(); }

Comm& no_others() {
  static Alone comm;
  return comm;
}

void agree(Comm& comm, std::string_view error) {
  const std::vector<std::string> errors = comm.gather(error);
  for (size_t rank = 0; rank < errors.size(); ++rank)
    if (!errors[rank].empty())
      fail("{}{}", comm.size() > 1 ? fmt::format("rank {}: ", rank) : "", errors[rank]);
}

}  // namespace longstride
