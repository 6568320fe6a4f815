// Bits per byte of a span of bytes under the minimum-context protocol (paper: table 3).
//
// The model sees windows of `context` bytes. The first window is scored whole, from its first byte on. Every
// later window advances by context - min_context, and only its last context - min_context positions are
// scored. So each byte is scored exactly once, and each byte beyond the first window has seen at least
// min_context bytes before it. With min_context = 0 the windows are disjoint. If the last window would run
// beyond the end, it is shifted back to end there, and scores only what is left, with more context than
// asked for. Data shorter than one window is padded at the end, which a causal model cannot see, and only
// its own bytes are scored.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "longstride/data/corpus.h"
#include "longstride/device/staging.h"
#include "longstride/model/transformer.h"

namespace longstride {

// A window begins at byte `begin` of the data; its positions [score_from, score_to) are scored.
struct EvaluationWindow {
  int64_t begin = 0;
  int64_t score_from = 0, score_to = 0;
  int64_t scored() const { return score_to - score_from; }
  bool operator==(const EvaluationWindow&) const = default;
};

// The windows of `size` bytes. Throws Error unless 0 <= min_context < context and size >= 1.
std::vector<EvaluationWindow> evaluation_windows(int64_t size, int64_t context, int64_t min_context);
// One window for each record. Throws Error if a record is longer than the context or `size` is no multiple
// of it.
std::vector<EvaluationWindow> record_windows(int64_t size, int64_t context, int64_t record_bytes);

// Mean loss of the positions [first, last] in the window.
struct CurvePoint {
  int64_t first = 0, last = 0;
  double bits = 0;    // per byte
  int64_t count = 0;  // bytes scored there, 1 or more
};

struct Evaluation {
  double nats = 0;    // sum over all scored bytes; not finite if the model's loss is not
  int64_t bytes = 0;  // scored
  int64_t windows = 0;
  int64_t min_context = 0;
  double standard_error = 0;      // of bits(), over windows; 0 for a single window
  std::vector<double> nats_at;    // (context) sums by position in the window
  std::vector<int64_t> count_at;  // (context) how many bytes each sum has

  // Bits per byte; for pictures this is bits per dimension.
  double bits() const;
  // exp of the mean loss: of 256 equally likely bytes, 256.
  double perplexity() const;
  // Positions in buckets [0], [1], [2, 3], [4, 7], ...; buckets without a scored byte are left out.
  std::vector<CurvePoint> curve() const;
};

// Bytes scored so far, and in all.
using EvaluationProgress = std::function<void(int64_t done, int64_t total)>;

// A model and the memory for one batch of its windows. An evaluation with one that was made beforehand
// allocates nothing on the model's device.
class BatchRoom {
 public:
  // `model` must outlive this object.
  explicit BatchRoom(Transformer& model);
  // What this object takes on the model's device for `batch` windows of `context` bytes.
  static int64_t bytes(int64_t batch, int64_t context);

  Transformer& model() const { return model_; }
  uint8_t* tokens() const { return static_cast<uint8_t*>(staging_.host()); }  // (batch, context)
  const float* loss() const;                                                  // (batch, context)
  // What waits for the device in evaluate(), where its work may never end: ranks that share it may be gone. It
  // throws then.
  void wait_by(std::function<void()> wait) { wait_ = std::move(wait); }
  // Computes loss() of tokens().
  void evaluate(const ModelParameters& parameters) const;
  // Passes the logits of tokens() on, as Transformer::logits does.
  void logits(const ModelParameters& parameters, const LogitsSink& sink,
              const std::function<void()>& after_layer = {}) const;

 private:
  Transformer& model_;
  int64_t batch_, context_, loss_at_;  // loss_at_ in bytes
  Staging staging_;
  std::function<void()> wait_;
};

// Scores `bytes` with the model of `room`, plan.batch windows at a time. `record_bytes` > 0: the data is
// records (pictures), each with its own window, and min_context must be 0. `max_bytes` > 0: only the first
// max_bytes; of records only whole ones, and at least one. Sums are in double, in the order of the windows.
// Throws Error for empty data and where the two functions above do.
Evaluation evaluate_bytes(const BatchRoom& room, const ModelParameters& parameters,
                          std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                          int64_t max_bytes, const EvaluationProgress& progress = {});
// The same with memory that is allocated for this call.
Evaluation evaluate_bytes(Transformer& model, const ModelParameters& parameters,
                          std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                          int64_t max_bytes, const EvaluationProgress& progress = {});

// A part of the data, read window by window; InputError is thrown if it cannot be read any more.
Evaluation evaluate_segment(const BatchRoom& room, const ModelParameters& parameters, const Segment& segment,
                            int64_t min_context, int64_t max_bytes, const EvaluationProgress& progress = {});
Evaluation evaluate_segment(Transformer& model, const ModelParameters& parameters, const Segment& segment,
                            int64_t min_context, int64_t max_bytes, const EvaluationProgress& progress = {});

// What a model says of each byte.
struct ByteEntropies {
  std::vector<float> bits;     // -log2 of the byte's probability
  std::vector<float> entropy;  // of the distribution that was predicted for it, in bits
};

// Those of `bytes`, window by window as evaluate_bytes() scores them. `progress` is also called after each
// block of the model. Throws Error where evaluate_bytes() does.
ByteEntropies entropies_of(const BatchRoom& room, const ModelParameters& parameters,
                           std::span<const uint8_t> bytes, int64_t record_bytes, int64_t min_context,
                           const EvaluationProgress& progress = {});

}  // namespace longstride
