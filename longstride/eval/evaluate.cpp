#include "longstride/eval/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>

#include "longstride/base/threads.h"

namespace longstride {

std::vector<EvaluationWindow> evaluation_windows(int64_t size, int64_t context, int64_t min_context) {
  LONGSTRIDE_CHECK(size >= 1, "there is no data to evaluate");
  LONGSTRIDE_CHECK(min_context >= 0 && min_context < context,
                   "a minimum context of {} bytes; the model's context allows 0 to {}", min_context,
                   context - 1);
  std::vector<EvaluationWindow> windows{{0, 0, std::min(size, context)}};
  for (int64_t scored = context; scored < size;) {
    const int64_t end = std::min(size, scored + context - min_context);
    windows.push_back({end - context, scored - (end - context), context});
    scored = end;
  }
  return windows;
}

std::vector<EvaluationWindow> record_windows(int64_t size, int64_t context, int64_t record_bytes) {
  LONGSTRIDE_CHECK(size >= 1, "there is no data to evaluate");
  LONGSTRIDE_CHECK(record_bytes >= 1 && record_bytes <= context,
                   "a record has {} bytes, but the model's context is {}", record_bytes, context);
  LONGSTRIDE_CHECK(size % record_bytes == 0, "{} bytes are no whole number of records of {} bytes", size,
                   record_bytes);
  std::vector<EvaluationWindow> windows;
  for (int64_t begin = 0; begin < size; begin += record_bytes) windows.push_back({begin, 0, record_bytes});
  return windows;
}

double Evaluation::bits() const { return nats / (static_cast<double>(bytes) * std::numbers::ln2); }

double Evaluation::perplexity() const { return std::exp(nats / static_cast<double>(bytes)); }

std::vector<CurvePoint> Evaluation::curve() const {
  std::vector<CurvePoint> points;
  const int64_t positions = static_cast<int64_t>(nats_at.size());
  for (int64_t first = 0; first < positions;) {
    const int64_t last = std::min(positions - 1, first == 0 ? 0 : 2 * first - 1);
    CurvePoint point{first, last};
    double sum = 0;
    for (int64_t position = first; position <= last; ++position) {
      sum += nats_at[position];
      point.count += count_at[position];
    }
    point.bits = sum / (static_cast<double>(point.count) * std::numbers::ln2);
    if (point.count > 0) points.push_back(point);
    first = last + 1;
  }
  return points;
}

namespace {

// The standard error of a ratio of sums, nats / bytes, over windows that score different numbers of bytes.
double standard_error_of_bits(const std::vector<double>& nats, const std::vector<EvaluationWindow>& windows,
                              double mean, int64_t bytes) {
  const double count = static_cast<double>(windows.size());
  if (count < 2) return 0;
  double squares = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    const double deviation = nats[w] - mean * static_cast<double>(windows[w].scored());
    squares += deviation * deviation;
  }
  return std::sqrt(squares * count / (count - 1)) / (static_cast<double>(bytes) * std::numbers::ln2);
}

// The byte at which the losses begin, after the tokens.
int64_t loss_offset(int64_t batch, int64_t context) { return (batch * context + 63) / 64 * 64; }

int64_t limited(int64_t size, int64_t record_bytes, int64_t max_bytes) {
  LONGSTRIDE_CHECK(max_bytes >= 0, "evaluation of at most {} bytes; 0 means all", max_bytes);
  if (max_bytes == 0 || max_bytes >= size) return size;
  if (record_bytes > 0) max_bytes = std::max(record_bytes, max_bytes / record_bytes * record_bytes);
  return std::min(size, max_bytes);
}

// Bytes in memory or in a file.
struct Source {
  int64_t size = 0, record_bytes = 0;
  std::function<void(int64_t from, std::span<uint8_t> bytes)> read;
};

Source source_of(std::span<const uint8_t> bytes, int64_t record_bytes) {
  const auto copy = [bytes](int64_t from, std::span<uint8_t> to) {
    std::copy_n(bytes.begin() + from, to.size(), to.begin());
  };
  return {static_cast<int64_t>(bytes.size()), record_bytes, copy};
}

Source source_of(const Segment& segment) {
  LONGSTRIDE_CHECK(segment.corpus != nullptr, "there is no data to evaluate");
  return {segment.size(), segment.corpus->record_bytes(),
          [&segment](int64_t from, std::span<uint8_t> to) { segment.read(from, to); }};
}

}  // namespace

int64_t BatchRoom::bytes(int64_t batch, int64_t context) {
  return loss_offset(batch, context) + batch * context * size_of(DType::f32);
}

BatchRoom::BatchRoom(Transformer& model)
    : model_(model),
      batch_(model.plan().batch),
      context_(model.config().context),
      loss_at_(loss_offset(batch_, context_)),
      staging_(model.plan().device, bytes(batch_, context_)) {}

const float* BatchRoom::loss() const {
  return reinterpret_cast<const float*>(static_cast<const char*>(staging_.host()) + loss_at_);
}

void BatchRoom::evaluate(const ModelParameters& parameters) const {
  const DeviceKind device = model_.plan().device.kind;
  char* base = static_cast<char*>(staging_.device());
  staging_.upload(0, loss_at_);
  model_.evaluate(parameters, Tensor(base, DType::u8, {batch_, context_}, device),
                  Tensor(base + loss_at_, DType::f32, {batch_, context_}, device));
  staging_.download(loss_at_, staging_.bytes() - loss_at_);
  if (wait_) wait_();
  staging_.wait();
}

void BatchRoom::logits(const ModelParameters& parameters, const LogitsSink& sink,
                       const std::function<void()>& after_layer) const {
  staging_.upload(0, loss_at_);
  model_.logits(parameters,
                Tensor(staging_.device(), DType::u8, {batch_, context_}, model_.plan().device.kind), sink,
                after_layer);
}

namespace {

std::vector<EvaluationWindow> windows_of(int64_t size, int64_t context, int64_t record_bytes,
                                         int64_t min_context) {
  LONGSTRIDE_CHECK(
      record_bytes <= 0 || min_context == 0,
      "a minimum context of {} bytes is for continuous data; each picture has its own window, use 0",
      min_context);
  return record_bytes > 0 ? record_windows(size, context, record_bytes)
                          : evaluation_windows(size, context, min_context);
}

// Reads windows into the rows of `tokens` =. Bytes after the last scored position cannot be seen from it; but
// a record's window must not show the next record.
template <class Read>
void fill_tokens(std::span<const EvaluationWindow> windows, int64_t context, const BatchRoom& room,
                 const Read& read) {
  uint8_t* const tokens = room.tokens();
  std::fill_n(tokens, room.model().plan().batch * context, uint8_t{0});
  for (size_t i = 0; i < windows.size(); ++i)
    read(windows[i].begin,
         {tokens + static_cast<int64_t>(i) * context, static_cast<size_t>(windows[i].score_to)});
}

Evaluation evaluate_source(const BatchRoom& room, const ModelParameters& parameters, const Source& source,
                           int64_t min_context, int64_t max_bytes, const EvaluationProgress& progress) {
  const Transformer& model = room.model();
  const int64_t context = model.config().context, batch = model.plan().batch;
  const int64_t record_bytes = source.record_bytes;
  const int64_t size = limited(source.size, record_bytes, max_bytes);
  const std::vector<EvaluationWindow> windows = windows_of(size, context, record_bytes, min_context);

  Evaluation result;
  result.min_context = min_context;
  result.windows = static_cast<int64_t>(windows.size());
  result.nats_at.assign(context, 0);
  result.count_at.assign(context, 0);
  const float* loss = room.loss();
  std::vector<double> window_nats;

  for (size_t first = 0; first < windows.size(); first += batch) {
    const size_t count = std::min<size_t>(batch, windows.size() - first);
    fill_tokens({&windows[first], count}, context, room, source.read);
    room.evaluate(parameters);
    for (size_t i = 0; i < count; ++i) {
      const EvaluationWindow& window = windows[first + i];
      double sum = 0;
      for (int64_t position = window.score_from; position < window.score_to; ++position) {
        const double nats = loss[static_cast<int64_t>(i) * context + position];
        sum += nats;
        result.nats_at[position] += nats;
        ++result.count_at[position];
      }
      window_nats.push_back(sum);
      result.nats += sum;
      result.bytes += window.scored();
    }
    if (progress) progress(result.bytes, size);
  }
  result.standard_error = standard_error_of_bits(
      window_nats, windows, result.nats / static_cast<double>(result.bytes), result.bytes);
  return result;
}

}  // namespace

Evaluation evaluate_bytes(const BatchRoom& room, const ModelParameters& parameters,
                          std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                          int64_t max_bytes, const EvaluationProgress& progress) {
  return evaluate_source(room, parameters, source_of(bytes, record_bytes), min_context, max_bytes, progress);
}

Evaluation evaluate_bytes(Transformer& model, const ModelParameters& parameters,
                          std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                          int64_t max_bytes, const EvaluationProgress& progress) {
  return evaluate_bytes(BatchRoom(model), parameters, bytes, record_bytes, min_context, max_bytes, progress);
}

Evaluation evaluate_segment(const BatchRoom& room, const ModelParameters& parameters, const Segment& segment,
                            int64_t min_context, int64_t max_bytes, const EvaluationProgress& progress) {
  return evaluate_source(room, parameters, source_of(segment), min_context, max_bytes, progress);
}

Evaluation evaluate_segment(Transformer& model, const ModelParameters& parameters, const Segment& segment,
                            int64_t min_context, int64_t max_bytes, const EvaluationProgress& progress) {
  return evaluate_segment(BatchRoom(model), parameters, segment, min_context, max_bytes, progress);
}

namespace {

// Of row `x` (256): -log2 of the probability of `byte`, and the entropy of the distribution.
std::pair<float, float> bits_and_entropy(const float* x, uint8_t byte) {
  const double top = *std::max_element(x, x + kVocabulary);
  double sum = 0, weighted = 0;
  for (int64_t i = 0; i < kVocabulary; ++i) {
    const double below = x[i] - top, weight = std::exp(below);
    sum += weight;
    // A weight of 0 adds nothing, also where the logit is minus infinity.
    if (weight > 0) weighted += weight * below;
  }
  const double log_sum = std::log(sum);
  return {static_cast<float>((log_sum - (x[byte] - top)) / std::numbers::ln2),
          static_cast<float>((log_sum - weighted / sum) / std::numbers::ln2)};
}

}  // namespace

ByteEntropies entropies_of(const BatchRoom& room, const ModelParameters& parameters,
                           std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                           const EvaluationProgress& progress) {
  const Transformer& model = room.model();
  const int64_t context = model.config().context, size = std::ssize(bytes);
  const std::vector<EvaluationWindow> windows = windows_of(size, context, record_bytes, min_context);
  const Source source = source_of(bytes, record_bytes);
  ByteEntropies result{std::vector<float>(bytes.size()), std::vector<float>(bytes.size())};
  int64_t done = 0;
  std::vector<float> on_cpu;
  for (size_t first = 0; first < windows.size(); first += model.plan().batch) {
    const size_t count = std::min<size_t>(model.plan().batch, windows.size() - first);
    const std::span batch(&windows[first], count);
    fill_tokens(batch, context, room, source.read);
    const LogitsSink sink = [&](int64_t from, const Tensor& logits) {
      const int64_t rows = logits.shape[0];
      Tensor read = logits;
      if (logits.device != DeviceKind::cpu) {
        on_cpu.resize(static_cast<size_t>(logits.count()));
        read = Tensor(on_cpu.data(), DType::f32, {rows, kVocabulary});
        copy(logits, read);
      }
      parallel_for(rows, [&](int64_t i) {
        const int64_t window = (from + i) / context, position = (from + i) % context;
        if (window >= std::ssize(batch)) return;
        const EvaluationWindow& of = batch[static_cast<size_t>(window)];
        if (position < of.score_from || position >= of.score_to) return;
        const size_t at = static_cast<size_t>(of.begin + position);
        std::tie(result.bits[at], result.entropy[at]) =
            bits_and_entropy(read.as<float>() + i * kVocabulary, bytes[at]);
      });
    };
    std::function<void()> after_layer;
    if (progress) after_layer = [&] { progress(done, size); };
    room.logits(parameters, sink, after_layer);
    for (const EvaluationWindow& window : batch) done += window.scored();
    if (progress) progress(done, size);
  }
  return result;
}

}  // namespace longstride
