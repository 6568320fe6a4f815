// Rows of one head in memory, tiles of positions, and how rows are copied to scratch and back.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "longstride/ops/attention.h"

namespace longstride::cpu {

// Queries and keys in a tile.
inline constexpr int64_t kAttentionTile = kMaskTile;

// Widths of rows in scratch are rounded up to this, the longest vector; the padding is zero.
inline constexpr int64_t kWidthStep = 16;
inline int64_t padded_width(int64_t width) { return (width + kWidthStep - 1) / kWidthStep * kWidthStep; }

// The rows of one sequence and head in a (B, N, H, D) tensor of f32 or bf16.
struct HeadRows {
  char* data = nullptr;
  int64_t stride = 0;  // bytes
  DType dtype = DType::f32;
  int64_t width = 0;  // elements
  int64_t bytes = 0;  // of them

  char* row(int64_t position) const { return data + position * stride; }
  float* f32(int64_t position) const { return reinterpret_cast<float*>(row(position)); }
  uint16_t* bf16(int64_t position) const { return reinterpret_cast<uint16_t*>(row(position)); }
};
inline HeadRows head_rows(const Tensor& t, int64_t batch, int64_t head) {
  const int64_t size = size_of(t.dtype);
  return {static_cast<char*>(t.data) + (batch * t.stride[0] + head * t.stride[2]) * size, t.stride[1] * size,
          t.dtype, t.shape[3], t.shape[3] * size};
}
// The values of one sequence and head in a (B, H, N) tensor.
inline float* head_values(const Tensor& t, int64_t batch, int64_t head) {
  return static_cast<float*>(t.data) + batch * t.stride[0] + head * t.stride[1];
}

// The positions of a tile's indices; -1 for an index without a position.
struct TilePositions {
  int64_t count = 0;
  int64_t position[kAttentionTile];

  TilePositions() = default;  // of no tile
  TilePositions(const TileGrid& grid, int64_t tile) : count(grid.size(tile)) {
    const LaneSteps steps = grid.order.lane(grid.lane(tile));
    const int64_t begin = grid.begin_in_lane(tile);
    int64_t next = steps.position(begin), left_in_block = steps.count - begin % steps.count;
    for (int64_t i = 0; i < count; ++i) {
      position[i] = next < grid.order.n ? next : -1;
      ++next;
      if (--left_in_block == 0) next += steps.leap, left_in_block = steps.count;
    }
  }
};

inline void copy_as_f32(const char* from, DType dtype, int64_t width, float* to) {
  if (dtype == DType::f32) {
    std::memcpy(to, from, width * sizeof(float));
    return;
  }
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(from);
  for (int64_t j = 0; j < width; ++j) to[j] = std::bit_cast<float>(uint32_t{bits[j]} << 16);
}

// Copies rows of tiles into scratch before they are needed. It copies a few at a time between products, so
// that memory works while the kernels compute.
//
// Rows of a tile may be a multiple of some power of two apart (a column of a stride), and then a cache can
// hold only a few of them. To fetch a whole tile ahead would evict its first rows with its last. So each row
// is copied soon after it was fetched.
//
// Rows that need no change may also be used where they are. They are then fetched but not copied. This
// happens if a stream allows it and the rows do not crowd into a few lines of the cache.
//
// A kernel has a few streams of tiles (the keys that its queries meet, their values, ...). Each stream has a
// few buffers: one in use, one being filled, and those filled before, which a neighbouring task often needs
// again. Rows come as they are in the tensor, or widened from bf16 to f32. These become zero, because they
// take part in products: rows without a position, the rest of a row up to row_bytes, and rows up to a
// multiple of kRowStep.
class RowGatherer {
 public:
  static constexpr int64_t kRowStep = 32;

  static constexpr int kBuffers = 4;

  enum class Place { copied, as_it_lies };
  // `memory` holds kBuffers tiles.
  void set_stream(int stream, void* memory, DType dtype, int64_t row_bytes, Place place) {
    streams_[stream] = {static_cast<char*>(memory), dtype, row_bytes, place, {}, 0, {}, 0};
  }
  // True if the present requests are for this task, because the one before made them ahead. Otherwise begins
  // the task, without requests.
  bool has(int64_t task) {
    if (task == task_) return true;
    begin(task);
    return false;
  }
  void begin(int64_t task) {
    finish();
    task_ = task;
  }

  // Makes a tile the stream's latest. It is used where it is, found in a buffer, or queued for the buffer
  // that was not used for the longest time. The tile of the request before it stays untouched.
  void request(int stream, const HeadRows& rows, const TilePositions& tile) {
    Stream& s = streams_[stream];
    if (s.place == Place::as_it_lies && usable(s, rows, tile)) {
      s.latest[0] = rows.row(tile.position[0]);
      s.latest[1] = tile.count > kRowStep ? rows.row(tile.position[kRowStep]) : nullptr;
      s.latest_row = rows.stride;
      enqueue(tile, {rows, nullptr, rows.dtype, 0, nullptr});
      return;
    }
    int oldest = 0;
    for (int i = 0; i < kBuffers; ++i) {
      Held& held = s.held[i];
      if (held.rows == rows.data && same_positions(held.tile, tile)) {
        held.used = ++s.clock;
        s.use(i);
        return;
      }
      if (held.used < s.held[oldest].used) oldest = i;
    }
    s.held[oldest] = {rows.data, ++s.clock, tile};
    s.use(oldest);
    enqueue(tile, {rows, s.buffer(oldest), s.dtype, s.row_bytes, nullptr});
  }
  // Copies the rows that the step before the last fetched, and fetches some more. Inlined, so that it is
  // compiled with the instructions of the kernel around it.
  __attribute__((always_inline)) void step() {
    if (copied_.request == count_) return;
    while (!(copied_ == arrived_)) {
      copy_row(requests_[copied_.request], copied_.row);
      move(copied_);
    }
    arrived_ = fetched_;
    for (int64_t lines = 0; lines < kLinesAtATime && fetched_.request < count_;) {
      const Request& r = requests_[fetched_.request];
      const int64_t position = r.tile->position[fetched_.row];
      if (position >= 0)
        for (int64_t byte = 0; byte < r.rows.bytes; byte += 64)
          __builtin_prefetch(r.rows.row(position) + byte);
      lines += (r.rows.bytes + 63) / 64;
      move(fetched_);
    }
  }
  // Copies all rows that are still queued.
  void finish() {
    while (copied_.request < count_) step();
    count_ = 0;
    fetched_ = arrived_ = copied_ = {};
  }
  // The tile that was requested last, complete after finish().
  template <class T>
  struct Rows {
    const T* half[2] = {};  // rows 0 and kRowStep
    int64_t row = 0;        // elements from one row to the next within a half
    const T* at(int64_t i) const { return half[i / kRowStep] + i % kRowStep * row; }
  };
  template <class T>
  Rows<T> rows(int stream) const {
    const Stream& s = streams_[stream];
    return {{reinterpret_cast<const T*>(s.latest[0]), reinterpret_cast<const T*>(s.latest[1])},
            s.latest_row / static_cast<int64_t>(sizeof(T))};
  }

 private:
  static constexpr int kMostStreams = 4, kMostRequests = 8;
  // As many as a core can wait for at a time; it would stop at more. So few rows also stay in a cache until
  // the next step if all of them fall into the same sets.
  static constexpr int64_t kLinesAtATime = 12;
  // What a buffer holds, or will hold when the queue is empty.
  struct Held {
    const char* rows = nullptr;
    int64_t used = 0;
    TilePositions tile;
  };
  struct Stream {
    char* memory;
    DType dtype;
    int64_t row_bytes;
    Place place;
    Held held[kBuffers];
    int64_t clock;
    const char* latest[2];  // rows 0 and kRowStep
    int64_t latest_row;     // bytes
    void use(int i) {
      latest[0] = buffer(i), latest[1] = buffer(i) + kRowStep * row_bytes;
      latest_row = row_bytes;
    }
    char* buffer(int i) const { return memory + i * kAttentionTile * row_bytes; }
  };
  struct Request {
    HeadRows rows;
    char* to;  // null: fetch only
    DType to_dtype;
    int64_t row_bytes;
    const TilePositions* tile;
  };
  struct Cursor {
    int request = 0;
    int64_t row = 0;
    bool operator==(const Cursor&) const = default;
  };

  static bool same_positions(const TilePositions& a, const TilePositions& b) {
    return a.count == b.count && std::equal(a.position, a.position + a.count, b.position);
  }
  // Whether the rows are whole steps of neighbouring rows, in the type and width that are wanted.
  static bool usable(const Stream& s, const HeadRows& rows, const TilePositions& tile) {
    if (rows.dtype != s.dtype || rows.bytes != s.row_bytes || tile.count == 0 || tile.count % kRowStep != 0 ||
        rows.stride % 64 != 0 || rows.stride % 2048 == 0)
      return false;
    for (int64_t i = 0; i < tile.count; i += kRowStep)
      if (tile.position[i] < 0 || tile.position[i + kRowStep - 1] != tile.position[i] + kRowStep - 1)
        return false;
    return true;
  }
  void enqueue(const TilePositions& tile, const Request& request) {
    if (tile.count == 0) return;
    tiles_[count_] = tile;
    requests_[count_] = request;
    requests_[count_].tile = &tiles_[count_];
    ++count_;
  }
  void move(Cursor& cursor) const {
    if (++cursor.row == requests_[cursor.request].tile->count) ++cursor.request, cursor.row = 0;
  }
  __attribute__((always_inline)) static void copy_row(const Request& r, int64_t i) {
    if (r.to == nullptr) return;
    char* to = r.to + i * r.row_bytes;
    const int64_t position = r.tile->position[i];
    if (position >= 0 && r.rows.bytes == r.row_bytes && r.row_bytes % 64 == 0) {
      const char* from = r.rows.row(position);
      for (int64_t byte = 0; byte < r.row_bytes; byte += 64) __builtin_memcpy(to + byte, from + byte, 64);
    } else {
      copy_odd_row(r, position, to);
    }
    if (i + 1 == r.tile->count && r.tile->count % kRowStep != 0)
      std::memset(to + r.row_bytes, 0, (kRowStep - r.tile->count % kRowStep) * r.row_bytes);
  }
  static void copy_odd_row(const Request& r, int64_t position, char* to) {
    int64_t bytes = 0;
    if (position >= 0) {
      bytes = r.rows.width * size_of(r.to_dtype);
      if (r.to_dtype == r.rows.dtype)
        std::memcpy(to, r.rows.row(position), bytes);
      else
        copy_as_f32(r.rows.row(position), r.rows.dtype, r.rows.width, reinterpret_cast<float*>(to));
    }
    if (bytes < r.row_bytes) std::memset(to + bytes, 0, r.row_bytes - bytes);
  }

  Stream streams_[kMostStreams];
  Request requests_[kMostRequests];
  TilePositions tiles_[kMostRequests];
  int count_ = 0;
  Cursor fetched_, arrived_, copied_;
  int64_t task_ = -1;
};

// Copies a tile's rows to `to`, padded_width(width) apart, as f32, with zeros like RowGatherer's.
inline void gather_rows(const HeadRows& from, const TilePositions& tile, float* to) {
  const int64_t padded = padded_width(from.width);
  for (int64_t i = 0; i < padded_width(tile.count); ++i, to += padded) {
    if (i >= tile.count || tile.position[i] < 0) {
      std::memset(to, 0, padded * sizeof(float));
      continue;
    }
    copy_as_f32(from.row(tile.position[i]), from.dtype, from.width, to);
    if (padded > from.width) std::memset(to + from.width, 0, (padded - from.width) * sizeof(float));
  }
}

// How a tile's results combine with the tensor's: earlier passes may have written there.
enum class Write { over, onto };

// Copies values of a tile's positions, with zeros up to kAttentionTile.
inline void gather_values(const float* from, const TilePositions& tile, float* to) {
  for (int64_t i = 0; i < kAttentionTile; ++i)
    to[i] = i < tile.count && tile.position[i] >= 0 ? from[tile.position[i]] : 0;
}

}  // namespace longstride::cpu
