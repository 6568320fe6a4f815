// Dropout that computes a vector of Philox blocks at a time (contract: longstride/ops/dropout.h). The same
// bits for any number of threads, and the same masks as Dropout::keeps. No scratch.
#include "longstride/ops/dropout.h"

#include "longstride/ops/cpu/parallel.h"
#include "longstride/ops/cpu/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/dropout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

using Words = hn::ScalableTag<uint32_t>;

#if HWY_TARGET == HWY_SCALAR

// Vectors of one lane have no halves to multiply.
HWY_INLINE void philox_blocks(const RandomStream& stream, uint64_t first, uint32_t* words) {
  const PhiloxBlock block = stream.block(first);
  std::copy(block.begin(), block.end(), words);
}

#else

using WordVector = hn::Vec<Words>;

// Both halves of the 64-bit products of 32-bit lanes.
HWY_INLINE void multiply_wide(WordVector a, WordVector b, WordVector& high, WordVector& low) {
  const Words d;
  const hn::Repartition<uint64_t, Words> wide;
  const auto down = [&](WordVector v)
                        HWY_ATTR { return hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, v))); };
  const auto even = hn::MulEven(a, b);
  const auto odd = hn::MulEven(down(a), down(b));
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
}

// Writes the words of as many consecutive blocks as a vector has lanes, block by block.
HWY_INLINE void philox_blocks(const RandomStream& stream, uint64_t first, uint32_t* words) {
  const Words d;
  const WordVector base = hn::Set(d, static_cast<uint32_t>(first));
  const WordVector high = hn::Set(d, static_cast<uint32_t>(first >> 32));
  WordVector c0 = hn::Add(base, hn::Iota(d, 0));
  WordVector c1 = hn::IfThenElse(hn::Lt(c0, base), hn::Add(high, hn::Set(d, 1)), high);
  WordVector c2 = hn::Set(d, stream.stream), c3 = hn::Set(d, stream.step);
  uint32_t key0 = static_cast<uint32_t>(stream.seed), key1 = static_cast<uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    WordVector high0, low0, high1, low1;
    multiply_wide(c0, hn::Set(d, 0xD2511F53u), high0, low0);
    multiply_wide(c2, hn::Set(d, 0xCD9E8D57u), high1, low1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, key0));
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, key1));
    c1 = low1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, d, words);
}

#endif

// Calls body(tag, i, kept) for the elements [begin, end); begin is a multiple of 8.
template <class Body>
HWY_INLINE void for_each_mask(const Dropout& dropout, int64_t begin, int64_t end, const Body& body) {
  const Words d;
  HWY_ALIGN uint32_t words[8 * hn::MaxLanes(d)];
  const size_t blocks = hn::Lanes(d);
  const int64_t step = 8 * static_cast<int64_t>(blocks);
  // If `first` is not a multiple of 8, elements read the end of one block and the beginning of the next.
  const int64_t skipped = dropout.first % 8;
  const uint16_t* lanes = reinterpret_cast<const uint16_t*>(words) + skipped;
  const int32_t threshold = static_cast<int32_t>(dropout.threshold());
  for (int64_t at = begin; at < end; at += step) {
    const uint64_t block = static_cast<uint64_t>((dropout.first + at) / 8);
    philox_blocks(dropout.numbers(), block, words);
    if (skipped != 0) philox_blocks(dropout.numbers(), block + blocks, words + 4 * blocks);
    for_each_vector(std::min(step, end - at), [&](auto tag, int64_t i) HWY_ATTR {
      const hn::Rebind<uint16_t, decltype(tag)> d16;
      const hn::Rebind<int32_t, decltype(tag)> di;
      const auto value = hn::PromoteTo(di, hn::LoadU(d16, lanes + i));
      body(tag, at + i, hn::RebindMask(tag, hn::Gt(value, hn::Set(di, threshold - 1))));
    });
  }
}

template <class T>
HWY_INLINE void add(const float* x, const T* branch, const Dropout& dropout, float* y, int64_t begin,
                    int64_t end) {
  if (dropout.threshold() == 0)
    return for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
      store(hn::Add(load(d, x + begin + i), load(d, branch + begin + i)), d, y + begin + i);
    });
  const float scale = dropout.scale();
  for_each_mask(dropout, begin, end, [&](auto d, int64_t i, auto kept) HWY_ATTR {
    const auto base = load(d, x + i);
    const auto sum = hn::MulAdd(load(d, branch + i), hn::Set(d, scale), base);
    store(hn::IfThenElse(kept, sum, base), d, y + i);
  });
}

template <class T>
HWY_INLINE void keep(const float* dy, const Dropout& dropout, T* dbranch, int64_t begin, int64_t end) {
  if (dropout.threshold() == 0)
    return for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
      store(load(d, dy + begin + i), d, dbranch + begin + i);
    });
  const float scale = dropout.scale();
  for_each_mask(dropout, begin, end, [&](auto d, int64_t i, auto kept) HWY_ATTR {
    store(hn::IfThenElseZero(kept, hn::Mul(load(d, dy + i), hn::Set(d, scale))), d, dbranch + i);
  });
}

void add_kept(const Tensor& x, const Tensor& branch, const Dropout& dropout, const Tensor& y, int64_t begin,
              int64_t end) {
  with_type(branch.dtype, [&](auto element) HWY_ATTR {
    add(x.as<float>(), branch.as<decltype(element)>(), dropout, y.as<float>(), begin, end);
  });
}

void keep_gradient(const Tensor& dy, const Dropout& dropout, const Tensor& dbranch, int64_t begin,
                   int64_t end) {
  with_type(dbranch.dtype, [&](auto element) HWY_ATTR {
    keep(dy.as<float>(), dropout, dbranch.as<decltype(element)>(), begin, end);
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(add_kept);
HWY_EXPORT(keep_gradient);

static_assert(kElementsPerPiece % 8 == 0, "a piece begins with a Philox block");

void add_kept(const Tensor& x, const Tensor& branch, const Dropout& dropout, const Tensor& y, int64_t begin,
              int64_t end) {
  HWY_DYNAMIC_DISPATCH(add_kept)(x, branch, dropout, y, begin, end);
}

void keep_gradient(const Tensor& dy, const Dropout& dropout, const Tensor& dbranch, int64_t begin,
                   int64_t end) {
  HWY_DYNAMIC_DISPATCH(keep_gradient)(dy, dropout, dbranch, begin, end);
}

template <>
void compute(const OpContext& context, const DropoutAddForward& t) {
  parallel_pieces(t.x.count(), kElementsPerPiece,
                  [&](int64_t begin, int64_t end) { add_kept(t.x, t.branch, t.dropout, t.y, begin, end); });
}

template <>
void compute(const OpContext& context, const DropoutBackward& t) {
  parallel_pieces(t.dy.count(), kElementsPerPiece,
                  [&](int64_t begin, int64_t end) { keep_gradient(t.dy, t.dropout, t.dbranch, begin, end); });
}

}  // namespace longstride::cpu
#endif
