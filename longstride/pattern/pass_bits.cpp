#include "longstride/pattern/pass_bits.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace longstride {

namespace {

// Those of `excluded` whose keys are one range in any order.
Pattern contiguous_terms(const Pattern& excluded) {
  Pattern contiguous;
  for (int t = 0; t < excluded.count; ++t)
    if (is_contiguous(excluded.terms[t])) contiguous.add(excluded.terms[t]);
  return contiguous;
}

// Bits begin .. end-1, of 64.
uint64_t bits_between(int64_t begin, int64_t end) {
  const int64_t from = std::max<int64_t>(begin, 0), to = std::min<int64_t>(end, 64);
  if (from >= to) return 0;
  return ~uint64_t{0} >> (64 - (to - from)) << from;
}

}  // namespace

PassBits::PassBits(const Pattern& terms, const Pattern& excluded, const TokenOrder& keys)
    : keys_(keys), ranges_(terms, contiguous_terms(excluded), keys) {
  for (int t = 0; t < excluded.count; ++t) {
    const Term& term = excluded.terms[t];
    if (is_lanes(term)) {
      Progression other{term.size / std::gcd(term.size, keys.width), std::numeric_limits<int64_t>::max()};
      const int64_t places = places_of(term);
      if (places < other.reach) other.reach = (places - 1) * term.size / keys.width;
      for (int64_t bit = 0; bit < 64; bit += other.step) other.multiples |= uint64_t{1} << bit;
      progressions_.push_back(other);
    }
    if (!is_summary(term)) continue;
    summaries_.resize(static_cast<size_t>(keys.size() / 64 + 2));  // one word more, to read across the end
    for (int64_t index = 0; index < keys.size(); ++index) {
      const int64_t position = keys.position(index);
      if (position < keys.n && term.allows(keys.n - 1, position))
        summaries_[static_cast<size_t>(index / 64)] |= uint64_t{1} << index % 64;
    }
  }
}

PassBits::Row PassBits::row(int64_t q) {
  Row row;
  row.lane = lane_of(keys_, q);
  row.place = q / keys_.width;
  for (const IndexRange& range : ranges_.of(q)) row.ranges[static_cast<size_t>(row.count++)] = range;
  return row;
}

uint64_t PassBits::bits(const Row& row, int64_t begin) const {
  uint64_t allowed = 0;
  for (int r = 0; r < row.count; ++r) {
    const IndexRange& range = row.ranges[static_cast<size_t>(r)];
    allowed |= bits_between(range.begin - begin, range.end - begin);
  }
  return allowed == 0 ? 0 : allowed & ~left_out(row, begin);
}

uint64_t PassBits::left_out(const Row& row, int64_t begin) const {
  uint64_t out = 0;
  if (!summaries_.empty()) {
    const auto index = static_cast<size_t>(row.lane * keys_.lane_length() + begin);
    const size_t word = index / 64, shift = index % 64;
    out = summaries_[word] >> shift;
    if (shift > 0) out |= summaries_[word + 1] << (64 - shift);
  }
  for (const Progression& other : progressions_) {
    if (row.place < begin) continue;
    const int64_t first = (row.place - begin) % other.step;
    if (first >= 64) continue;
    uint64_t met = other.multiples << first;
    if (row.place - begin > other.reach) met &= bits_between(row.place - other.reach - begin, 64);
    out |= met;
  }
  return out;
}

bool leaves_out_single_keys(const PassTerms& pass) {
  return contiguous_terms(pass.excluded).count < pass.excluded.count;
}

double words_of_pass(const PassTerms& pass, int64_t n, int64_t tile) {
  double keys = 0;  // of an average query
  for (int t = 0; t < pass.terms.count; ++t) {
    const Term& term = pass.terms.terms[t];
    const double half = static_cast<double>(pass.keys.lane_length()) / 2;
    const double most = is_lanes(term) ? static_cast<double>(places_of(term)) : half;
    keys = std::max(keys, std::min(half, most));
  }
  return static_cast<double>(n) * (2 + keys / static_cast<double>(std::min<int64_t>(tile, 64)));
}

}  // namespace longstride
