// The visits of a plan (pattern/visits.h) in a GPU's memory, as its kernels are given them: a launch a sweep.
#pragma once

#include <vector>

#include "longstride/device/memory.h"
#include "longstride/ops/attention.h"
#include "longstride/pattern/boxes.h"
#include "longstride/pattern/visits.h"

namespace longstride::cuda {

inline constexpr int kTile = kMaskTile;  // rows of a tile; a mask's row is one word
inline constexpr int kPair = 2 * kTile;
inline constexpr int kMostPasses = kMaxTerms;

struct Sweep {
  CompactOrder rows;                 // of the side that owns
  CompactOrder others[kMostPasses];  // of the side that is visited, by pass
  int pairs = 0;                     // blocks of threads, a head and sequence
  const int* offsets = nullptr;      // (pairs + 1) in GPU memory: where a pair's runs begin
  const VisitRun* runs = nullptr;
  bool covers = true;  // every position is a row: what is written need not be zeroed before
};

inline constexpr int kFewestBoxRows = 8;  // a box begins where the pattern of swapped chunks does

inline constexpr int kMostBoxPasses = 3;

// A sweep that Hopper's kernels can take.
struct BoxSweep {
  Sweep sweep;
  BoxOrder rows, others[kMostBoxPasses];
  TokenOrder row_order, other_orders[kMostBoxPasses];
  int passes = 0;
};

// One unit of work in a launch of Hopper's kernels, of one head and sequence.
struct WorkItem {
  int pair = 0;  // of tiles
  int visits = 0;
  int is_keys = 0;  // of the keys' sweep
  int unused = 0;
};

// What one launch does: the forward a queries' sweep, the backward also a keys' sweep that is independent of
// it. Items stand in the order in which they are started: long ones first where lists are long, so that all
// multiprocessors end together; else neighbours together, so that the cache serves both sweeps.
struct Round {
  BoxSweep queries, keys;
  bool has_queries = false, has_keys = false;
  bool closed = false;  // of keys: pairs of tiles have nothing but each other
  // Of keys in HeadGroup::by_keys, in GPU memory: for each tile of queries the last pair of keys that it sees,
  // -1 if none. It sees every pair from there down to its first.
  const int* first_pairs = nullptr;
  const WorkItem* items = nullptr;  // in GPU memory
  int item_count = 0;
  int shared_tiles = 0;  // visited by many pairs: what the cache should hold of a head
};

// Tiles that tiles of keys visit, in the pass of a plan whose lists are the longest.
struct ListLengths {
  double mean = 0, total = 0, longest = 0;
};
ListLengths list_lengths(const Plan& plan);

// The heads that share a plan.
struct HeadGroup {
  std::vector<Sweep> queries;  // rows are queries: the forward and dQ
  std::vector<Sweep> keys;     // rows are keys: dK and dV
  // The same for Hopper's kernels; empty where the pattern has orders that the TMA cannot copy.
  std::vector<Round> forward, backward;
  // The keys' sweeps for a backward of five products, in which each round also sums dq: a closed one first, if
  // there is one, then those whose sums go by turns (hopper::backward_ordered). Empty where a tile of queries
  // sees pairs of keys with gaps between them.
  std::vector<Round> by_keys;
  ListLengths lengths;
  const int* heads = nullptr;  // in GPU memory
  int head_count = 0;
};

class AttentionLists final : public longstride::AttentionLists {
 public:
  AttentionLists(const AttentionPlan& plan, int device_index);
  const std::vector<HeadGroup>& groups() const { return groups_; }
  const TileMask* masks() const { return masks_; }  // of all passes
  int* counters() const { return counters_; }       // two, zero between launches
  int64_t bytes() const override { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::vector<HeadGroup> groups_;
  const TileMask* masks_ = nullptr;
  int* counters_ = nullptr;
};

// Those of an uploaded plan.
inline const AttentionLists& lists_of(const AttentionPlan& plan) {
  return static_cast<const AttentionLists&>(*plan.on_device);
}

// Which kernels serve calls from now on, where they can: for tests and benchmarks. `by_roles` and `by_keys` are
// the two backwards for Hopper, of seven and five products; `by_rows` are those for heads of any width.
enum class AttentionKernels { chosen, portable, by_roles, by_keys, by_rows };
void prefer_attention(AttentionKernels kernels);

}  // namespace longstride::cuda
