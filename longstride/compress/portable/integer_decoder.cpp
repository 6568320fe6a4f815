#include "longstride/compress/portable/integer_decoder.h"

#include <algorithm>
#include <bit>

#include "longstride/base/check.h"
#include "longstride/base/threads.h"
#include "longstride/compress/portable/whole_product.h"
#include "longstride/decode/small_work.h"
#include "longstride/ops/causal_convolution.h"

namespace longstride {

namespace {

using portable::cut;
using portable::Fixed;
using portable::shifted;

constexpr int kWholeBits = 15;  // of activations in products, and of values
constexpr int kKeyBits = 12;    // of queries and keys
constexpr int kPowerBits = PowerTable::kFractionBits;
constexpr int kWeightBits = 20;  // of an attention's largest weight
constexpr int kShareBits = 20;
constexpr int kScoreBits = 28;

// The caches' layout does not depend on dtypes; only its rows are used.
CachePlan plan_of(const ModelConfig& config, int64_t positions) {
  return plan_caches(config, positions, DType::f32, true);
}

int64_t row_bytes(const ModelConfig& config) {
  return (config.qk_head() + config.v_head()) * static_cast<int64_t>(sizeof(int16_t)) + 2;
}

// Rows that a position of a store reads at most.
int64_t most_read(const KeyStore& store, int64_t positions) {
  return std::min<int64_t>(positions, store.rows);
}
int64_t most_read(const CachePlan& plan) {
  int64_t most = 0;
  for (const KeyStore& store : plan.stores) most = std::max(most, most_read(store, plan.positions));
  return most;
}

template <class T>
void resize(std::vector<T>& vector, int64_t size) {
  vector.resize(static_cast<size_t>(size));
}

}  // namespace

IntegerDecoder::IntegerDecoder(const IntegerModel& model, int64_t streams, int64_t positions)
    : model_(model),
      streams_(streams),
      positions_(positions),
      plan_(plan_of(model.config(), positions)),
      rotation_(integer_rotation(model.config(), positions)) {
  const ModelConfig& config = model.config();
  LONGSTRIDE_CHECK(
      streams >= 1 && streams <= portable::kMostWholeRows && positions >= 1 && positions <= config.context,
      "{} windows of {} positions; at most {}, and the model's context is {}", streams, positions,
      portable::kMostWholeRows, config.context);
  // The part that training used is a float.
  share_ = portable::fixed_of(static_cast<float>(config.value_residual), kShareBits);
  constexpr uint64_t kLog2e = 6'196'328'019;  // in units of 2^-32
  score_factor_ = static_cast<int64_t>((kLog2e << (kScoreBits + 20 - 32)) /
                                       square_root(static_cast<uint64_t>(config.qk_head()) << 40));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    Cache& cache = caches_.emplace_back();
    const int64_t rows = streams * plan_.layer(layer).rows;
    resize(cache.keys, rows * config.qk_head());
    resize(cache.values, rows * config.v_head());
    resize(cache.key_exponents, rows);
    resize(cache.value_exponents, rows);
    if (config.convolves()) resize(cache.recent, streams * kConvolutionTaps * config.width);
  }
  lists_.resize(plan_.stores.size());
  for (size_t i = 0; i < lists_.size(); ++i)
    lists_[i].rows.reserve(static_cast<size_t>(most_read(plan_.stores[i], positions)));
  for (std::vector<Fixed>* rows : {&x_, &normed_, &attended_, &branch_})
    resize(*rows, streams * config.width);
  if (config.mixes_values()) resize(first_values_, streams * config.width);
  resize(qkv_, streams * config.qkv());
  resize(hidden_, streams * config.ff());
  resize(logits_fixed_, streams * kVocabulary);
  resize(logits_, streams * kVocabulary);
  resize(whole_, streams * std::max(config.width, config.ff()));
  resize(exponents_, streams);
  // threads() may differ when it steps; no more than these are used then.
  const int64_t teams = std::clamp<int64_t>(threads(), 1, streams * config.heads);
  resize(work_, teams);
  const auto most = static_cast<size_t>(most_read(plan_));
  for (AttentionWork& work : work_) {
    work.scores.reserve(most), work.rows.reserve(most), work.factors.reserve(most);
    resize(work.sums, config.v_head());
    resize(work.query, config.qk_head());
  }
}

int64_t IntegerDecoder::bytes(const ModelConfig& config, int64_t streams, int64_t positions) {
  constexpr int64_t kFixed = sizeof(Fixed);
  const CachePlan plan = plan_of(config, positions);
  int64_t a_stream = kFixed * (4 * config.width + config.qkv() + config.ff() + kVocabulary) +
                     static_cast<int64_t>(sizeof(float)) * kVocabulary +
                     static_cast<int64_t>(sizeof(int16_t)) * std::max(config.width, config.ff());
  if (config.mixes_values()) a_stream += kFixed * config.width;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    a_stream += plan.layer(layer).rows * row_bytes(config);
    if (config.convolves()) a_stream += kFixed * kConvolutionTaps * config.width;
  }
  // As many threads attend at once as there are heads.
  a_stream +=
      config.heads * ((kFixed + 2 * static_cast<int64_t>(sizeof(int32_t))) * most_read(plan) +
                      kFixed * config.v_head() + static_cast<int64_t>(sizeof(int16_t)) * config.qk_head());
  int64_t all = streams * a_stream;
  for (const KeyStore& store : plan.stores)
    all += most_read(store, positions) * static_cast<int64_t>(sizeof(int32_t));
  if (config.rotary())
    all += positions * (config.qk_head() / 2) * static_cast<int64_t>(sizeof(portable::Turn));
  return all;
}

Tensor IntegerDecoder::step(std::span<const uint8_t> previous, int64_t position) {
  const ModelConfig& config = model_.config();
  const int64_t count = std::ssize(previous);
  LONGSTRIDE_CHECK(count <= streams_ && position >= 0 && position < positions_,
                   "{} windows at position {}; the decoder has {} of {}", count, position, streams_,
                   positions_);
  const ThreadLimit limit(too_small_to_share(product_weights(config), count));
  for (int64_t s = 0; s < count; ++s) model_.embed(previous[s], position, x_.data() + s * config.width);
  for (int64_t layer = 0; layer < config.layers; ++layer) block(layer, count, position);
  norm(model_.final_norm(), count);
  product(model_.output(), normed_, count, logits_fixed_);
  // Whole numbers of up to 23 bits, times a power of two.
  constexpr int kLogitBits = 16;
  constexpr int64_t kMostLogit = (int64_t{1} << 23) - 1;
  for (int64_t i = 0; i < count * kVocabulary; ++i)
    logits_[i] =
        static_cast<float>(cut(shifted(logits_fixed_[i], portable::kFraction - kLogitBits), kMostLogit)) /
        (1 << kLogitBits);
  return Tensor(logits_.data(), DType::f32, {streams_, kVocabulary});
}

void IntegerDecoder::block(int64_t layer, int64_t count, int64_t position) {
  const ModelConfig& config = model_.config();
  const IntegerBlock& p = model_.blocks()[layer];
  const auto add_branch = [&] {
    for (int64_t i = 0; i < count * config.width; ++i) x_[i] = cut(x_[i] + branch_[i]);
  };

  norm(p.norm1, count);
  product(p.qkv, normed_, count, qkv_);
  for (int64_t s = 0; s < count; ++s) {
    Fixed* const row = qkv_.data() + s * config.qkv();
    if (config.rotary() || config.qk_norm) change_queries_and_keys(row, position);
    if (config.mixes_values()) {
      Fixed *const first = first_values_.data() + s * config.width, *const values = row + 2 * config.qk();
      if (layer == 0)
        std::copy_n(values, config.width, first);
      else
        for (int64_t i = 0; i < config.width; ++i)
          values[i] += shifted((first[i] - values[i]) * share_, kShareBits);
    }
    store(layer, s, position);
  }
  const LayerCachePlan& heads = plan_.layer(layer);
  for (const int index : heads.store_of_head) {
    RowList& list = lists_[index];
    if (list.position == position) continue;
    const KeyStore& keys = plan_.stores[index];
    const Reading reading = reading_of(keys, position);
    list.position = position;
    list.rows.clear();
    for (int t = 0; t < reading.term_count; ++t)
      for (int32_t j = 0; j < reading.terms[t].count; ++j)
        if (!read_before(keys, reading, t, reading.terms[t].key_at(j)))
          list.rows.push_back(reading.terms[t].row_at(j));
  }
  parallel_region(count * config.heads, std::min<int>(threads(), static_cast<int>(work_.size())),
                  [&](LoopItems& items) {
                    for (int64_t i; items.next(i);)
                      attend(layer, i / config.heads, i % config.heads, work_[items.thread()]);
                  });
  product(p.projection, attended_, count, branch_);
  add_branch();

  norm(p.norm2, count);
  if (config.convolves()) convolve(layer, count, position);
  product(p.up, normed_, count, hidden_);
  const portable::Activation& activation = portable::Activation::get();
  for (int64_t i = 0; i < count * config.ff(); ++i) hidden_[i] = activation(hidden_[i]);
  product(p.down, hidden_, count, branch_);
  add_branch();
}

void IntegerDecoder::norm(const IntegerNorm& norm, int64_t count) {
  const int64_t d = model_.config().width;
  const uint64_t epsilon = &norm == &model_.final_norm() ? portable::kEpsilon6 : portable::kEpsilon5;
  for (int64_t s = 0; s < count; ++s) {
    Fixed* const y = normed_.data() + s * d;
    portable::normalise({x_.data() + s * d, static_cast<size_t>(d)}, true, epsilon, y);
    for (int64_t i = 0; i < d; ++i)
      y[i] = cut(shifted(y[i] * norm.gain[i], IntegerModel::kGainBits) + norm.bias[i]);
  }
}

void IntegerDecoder::product(const WholeMatrix& w, const std::vector<Fixed>& x, int64_t count,
                             std::vector<Fixed>& y) {
  for (int64_t s = 0; s < count; ++s)
    exponents_[s] = portable::to_whole({x.data() + s * w.columns, static_cast<size_t>(w.columns)}, kWholeBits,
                                       whole_.data() + s * w.columns);
  portable::whole_product(w.values.data(), w.rows, w.columns, whole_.data(), count,
                          [&](int64_t n, int64_t s, int64_t sum) {
                            const int64_t value = shifted(sum * w.factors[n], w.rights[n] - exponents_[s]);
                            y[s * w.rows + n] = cut(cut(value) + (w.bias.empty() ? 0 : w.bias[n]));
                          });
}

void IntegerDecoder::change_queries_and_keys(Fixed* row, int64_t position) const {
  const ModelConfig& config = model_.config();
  const int64_t width = config.qk_head(), half = width / 2;
  for (int64_t head = 0; head < 2 * config.heads; ++head, row += width) {
    if (config.qk_norm)
      portable::normalise({row, static_cast<size_t>(width)}, false, portable::kEpsilon6, row);
    if (!config.rotary()) continue;
    const portable::Turn* const turns = rotation_.data() + position * half;
    for (int64_t i = 0; i < half; ++i) {
      const auto [cosine, sine] = turns[i];
      const Fixed a = row[i], b = row[i + half];
      row[i] = cut(shifted(a * cosine - b * sine, portable::kTurnBits));
      row[i + half] = cut(shifted(b * cosine + a * sine, portable::kTurnBits));
    }
  }
}

void IntegerDecoder::store(int64_t layer, int64_t stream, int64_t position) {
  const ModelConfig& config = model_.config();
  Cache& cache = caches_[layer];
  const LayerCachePlan& plan = plan_.layer(layer);
  const int64_t width = config.qk_head(), v_width = config.v_head();
  const Fixed* const keys = qkv_.data() + stream * config.qkv() + config.qk();
  const Fixed* const values = keys + config.qk();
  for (int64_t head = 0; head < config.heads; ++head) {
    const int64_t first = stream * plan.rows + plan.first_row[head];
    const KeyStore& keeps = plan_.stores[plan.store_of_head[head]];
    for_rows_of_key(keeps, position, position + 1, [&](int32_t row) {
      const int64_t at = first + row;
      cache.key_exponents[at] = static_cast<int8_t>(portable::to_whole(
          {keys + head * width, static_cast<size_t>(width)}, kKeyBits, cache.keys.data() + at * width));
      cache.value_exponents[at] =
          static_cast<int8_t>(portable::to_whole({values + head * v_width, static_cast<size_t>(v_width)},
                                                 kWholeBits, cache.values.data() + at * v_width));
    });
  }
}

void IntegerDecoder::attend(int64_t layer, int64_t stream, int64_t head, AttentionWork& work) {
  const ModelConfig& config = model_.config();
  const Cache& cache = caches_[layer];
  const LayerCachePlan& plan = plan_.layer(layer);
  const int64_t width = config.qk_head(), v_width = config.v_head();
  const int64_t first = stream * plan.rows + plan.first_row[head];
  const std::vector<int32_t>& rows = lists_[plan.store_of_head[head]].rows;
  Fixed* const out = attended_.data() + stream * config.width + head * v_width;
  std::fill_n(out, v_width, Fixed{0});
  if (rows.empty()) return;

  // Scores as exponents of two. They are cut where a difference of two could not be told from infinity.
  constexpr int64_t kMostScore = int64_t{1} << 40;
  const int query_exponent =
      portable::to_whole({qkv_.data() + stream * config.qkv() + head * width, static_cast<size_t>(width)},
                         kKeyBits, work.query.data());
  resize(work.scores, std::ssize(rows));
  whole_scores(work.query.data(), cache.keys.data() + first * width, rows.data(), std::ssize(rows), width,
               work.scores.data());
  int64_t most = -kMostScore;
  int most_exponent = 0;
  const int right = 2 * portable::kFraction + kScoreBits - kPowerBits - query_exponent;
  for (size_t j = 0; j < rows.size(); ++j) {
    const int64_t at = first + rows[j];
    int64_t& score = work.scores[j];
    score = cut(shifted(score * score_factor_, right - cache.key_exponents[at]), kMostScore);
    most = std::max(most, score);
    most_exponent = std::max<int>(most_exponent, cache.value_exponents[at]);
  }
  const PowerTable& power = PowerTable::get();
  work.rows.clear(), work.factors.clear();
  int64_t total = 0;
  for (size_t j = 0; j < rows.size(); ++j) {
    const auto weight = static_cast<int64_t>(power(static_cast<uint64_t>(most - work.scores[j])) >>
                                             (PowerTable::kOneBits - kWeightBits));
    if (weight == 0) continue;
    total += weight;
    // A value with a smaller exponent counts so much less.
    const auto factor =
        static_cast<int32_t>(weight >> (most_exponent - cache.value_exponents[first + rows[j]]));
    if (factor == 0) continue;
    work.rows.push_back(rows[j]);
    work.factors.push_back(factor);
  }
  whole_mixture(work.factors.data(), cache.values.data() + first * v_width, work.rows.data(),
                std::ssize(work.rows), v_width, work.sums.data());
  // sums / total by a reciprocal of 31 bits. A sum has at most 15 bits more than the total.
  const int total_bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(total)));
  const int excess = total_bits - 31, less = std::max(0, total_bits - 16);
  const int64_t reciprocal = (int64_t{1} << 61) / shifted(total, excess);
  for (int64_t i = 0; i < v_width; ++i)
    out[i] = cut(shifted((work.sums[i] >> less) * reciprocal, 61 + excess - less - most_exponent));
}

void IntegerDecoder::convolve(int64_t layer, int64_t count, int64_t position) {
  const int64_t d = model_.config().width;
  const std::vector<int64_t>& w = model_.blocks()[layer].convolution;
  for (int64_t s = 0; s < count; ++s) {
    Fixed* const recent = caches_[layer].recent.data() + s * kConvolutionTaps * d;
    Fixed* const y = normed_.data() + s * d;
    std::copy_n(y, d, recent + position % kConvolutionTaps * d);
    for (int64_t tap = 0; tap < std::min(kConvolutionTaps, position + 1); ++tap) {
      const Fixed* const row = recent + (position - tap) % kConvolutionTaps * d;
      // Rounded before the product, which would not fit otherwise.
      constexpr int kLess = 8;
      for (int64_t i = 0; i < d; ++i)
        y[i] += shifted(shifted(row[i], kLess) * w[tap * d + i], IntegerModel::kGainBits - kLess);
    }
    for (int64_t i = 0; i < d; ++i) y[i] = cut(y[i]);
  }
}

}  // namespace longstride
