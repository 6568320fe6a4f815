#include "longstride/data/batches.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"

namespace longstride {

KeyedPermutation::KeyedPermutation(int64_t count, uint64_t key) : count_(count), key_(key) {
  LONGSTRIDE_CHECK(count > 0, "a permutation of {} things", count);
  half_bits_ = (std::bit_width(static_cast<uint64_t>(count - 1)) + 1) / 2;
}

int64_t KeyedPermutation::operator()(int64_t index) const {
  LONGSTRIDE_CHECK(0 <= index && index < count_, "index {} of a permutation of {}", index, count_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(index);
  do {  // fewer than four tries on average: the domain is less than four times count
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint32_t round = 0; round < 6; ++round) {
      const PhiloxBlock random = philox({static_cast<uint32_t>(right), round, 0, 0}, key_);
      left = std::exchange(right, left ^ (random[0] & mask));
    }
    value = (left << half_bits_) | right;
  } while (value >= static_cast<uint64_t>(count_));
  return static_cast<int64_t>(value);
}

int64_t windows_in_epoch(int64_t size, int64_t context, bool pictures) {
  if (pictures) return size / context;
  return std::max<int64_t>(1, (size - context + 1) / context);
}

BatchLoader::BatchLoader(Segment segment, int64_t context, int64_t batch, uint64_t seed)
    : segment_(std::move(segment)), context_(context), batch_(batch), seed_(seed) {
  LONGSTRIDE_CHECK(segment_.corpus != nullptr, "batches of no data");
  LONGSTRIDE_CHECK(context > 0 && batch > 0, "batches of {} x {} bytes; both must be positive", batch,
                   context);
  const int64_t record = segment_.corpus->record_bytes();
  const int64_t size = segment_.size();
  const std::string& what = segment_.corpus->description();
  if (record > 0) {
    const ImageShape& shape = segment_.corpus->shape();
    LONGSTRIDE_CHECK(
        context == record,
        "a context of {} does not hold one picture of {} x {} x {} = {} bytes ({}); set the context to {}",
        context, shape.height, shape.width, shape.channels, record, what, record);
    LONGSTRIDE_CHECK(size >= record, "no pictures to learn from in this part of {}; change data.split", what);
    windows_ = windows_in_epoch(size, context, true);
    return;
  }
  LONGSTRIDE_CHECK(
      size >= context,
      "only {} bytes to learn from, less than one context of {} ({}); give more data, a larger share in "
      "data.split, or a shorter context",
      size, context, what);
  windows_ = windows_in_epoch(size, context, false);
  phases_ = std::min(context, size - windows_ * context + 1);
}

int64_t BatchLoader::start_of(int64_t example) const {
  LONGSTRIDE_CHECK(example >= 0, "example {}", example);
  const int64_t epoch = example / windows_;
  const PhiloxBlock random =
      RandomStream{seed_, random_stream::kBatch, 0}.block(static_cast<uint64_t>(epoch));
  const uint64_t word = (uint64_t{random[0]} << 32) | random[1];
  __extension__ using Wide = unsigned __int128;
  const auto phase = static_cast<int64_t>((static_cast<Wide>(word) * static_cast<uint64_t>(phases_)) >> 64);
  const KeyedPermutation order(windows_, (uint64_t{random[2]} << 32) | random[3]);
  return segment_.begin + phase + order(example % windows_) * context_;
}

void BatchLoader::load(int64_t step, int64_t first, int64_t count, uint8_t* tokens) const {
  LONGSTRIDE_CHECK(step >= 0 && 0 <= first && 0 <= count && first + count <= batch_,
                   "examples [{}, {}) of step {} in batches of {}", first, first + count, step, batch_);
  for (int64_t s = 0; s < count; ++s) {
    const int64_t start = start_of(step * batch_ + first + s);
    segment_.corpus->read(start, {tokens + s * context_, static_cast<size_t>(context_)});
  }
}

void BatchLoader::load_pieces(int64_t step, int64_t pieces, int64_t first, int64_t count,
                              uint8_t* tokens) const {
  LONGSTRIDE_CHECK(step >= 0 && pieces >= 1 && context_ % pieces == 0,
                   "step {} in {} pieces of a context of {}", step, pieces, context_);
  LONGSTRIDE_CHECK(first >= 0 && count >= 0 && first + count <= batch_ * pieces,
                   "sequences {} to {} of a step of {}", first, first + count, batch_ * pieces);
  const int64_t length = context_ / pieces, of_step = step / pieces * pieces * batch_;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t s = first + i, start = start_of(of_step + s) + (step + s) % pieces * length;
    segment_.corpus->read(start, {tokens + i * length, static_cast<size_t>(length)});
  }
}

}  // namespace longstride
