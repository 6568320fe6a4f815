// longstride for C++ programs: a trained run as a model that scores, generates and compresses bytes; training
// on bytes in memory; attention with a pattern on arrays of one's own. docs/cpp.md has examples, and what is
// promised to stay.
//
// What cannot be done throws longstride::Error with a message for people. An exception of a callback comes
// out of the call that was given the callback. Nothing prints or ends the process. Several threads may use
// one const object; a Generation belongs to one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <longstride/base/error.h>

namespace longstride {

struct ModelState;
struct GenerationState;
struct AttentionState;
struct TrainOptions;

// Of the library that the program runs with, as "1.2.3".
[[gnu::visibility("default")]] std::string version();

// A text as the bytes that models work on; the text must outlive it.
inline std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Told how many of how many bytes are done, now and then. What it throws ends the call and comes out of it.
using Progress = std::function<void(int64_t done, int64_t total)>;

struct LoadOptions {
  std::string device = "auto";  // cpu, cuda, cuda:1, ...; auto: the first GPU, or the CPU where there is none
  std::string precision = "auto";  // of matrix products: f32, bf16, or f16 on a GPU
  int threads = 0;                 // of the CPU; 0: as many as the process may use
  int64_t step = -1;               // checkpoint; -1: the best
  bool int8 = false;               // weights of products in eight bits
};

struct GenerateOptions {
  int64_t count = 0;       // bytes to draw, also beyond the context; 0: as many as the context has left
  double temperature = 1;  // 0: always the likeliest byte
  int64_t top_k = 0;       // only the k likeliest bytes; 0: all
  double top_p = 1;        // only the likeliest bytes that make up this probability
  uint64_t seed = 0;       // the same seed gives the same bytes
  double hop = 0.5;        // the part of the context by which the window moves on when it is full
};

struct CompressOptions {
  bool portable = false;  // probabilities by integer arithmetic, so that every CPU decompresses it
};

// Bytes as a model draws them, one by one. Keeps its model alive.
class [[gnu::visibility("default")]] Generation {
 public:
  class Iterator {
   public:
    using value_type = uint8_t;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Generation* from = nullptr) : from_(from) {}
    uint8_t operator*() const { return *from_->current_; }
    Iterator& operator++() { return from_->next(), *this; }
    void operator++(int) { from_->next(); }
    bool operator==(std::default_sentinel_t) const { return !from_->current_; }

   private:
    Generation* from_;
  };

  ~Generation();
  Generation(Generation &&) noexcept;
  Generation& operator=(Generation&&) noexcept;

  // Draws the next byte; none when all are drawn.
  std::optional<uint8_t> next();
  // for (uint8_t byte : model.generate(...)): draws the first byte, or goes on where the last loop was left.
  Iterator begin();
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class Model;
  explicit Generation(std::unique_ptr<GenerationState> state);
  std::unique_ptr<GenerationState> state_;
  std::optional<uint8_t> current_;
};

// What a model says of each byte.
struct Entropies {
  std::vector<float> bits;     // -log2 of the byte's probability
  std::vector<float> entropy;  // of the distribution that was predicted for it, in bits
};

// A run's model with its weights; copies share them.
class [[gnu::visibility("default")]] Model {
 public:
  // `run`: a directory that `longstride train` or train() wrote.
  explicit Model(const std::string& run, const LoadOptions& options = {});
  Model(const Model&) = default;
  Model& operator=(const Model&) = default;

  int64_t context() const;     // bytes that it sees at most
  int64_t parameters() const;  // how many
  int64_t step() const;        // of training
  std::string kind() const;    // text, image or audio
  std::string pattern() const;

  // Row i: the logits of byte i, by its 256 values, given the bytes before it; (bytes, 256) row by row. At
  // most context() bytes. One forward pass over all of them.
  std::vector<float> logits(std::span<const uint8_t> bytes, const Progress& progress = {}) const;
  // The 256 logits of the byte after these; fewer than context() bytes.
  std::vector<float> next_logits(std::span<const uint8_t> bytes) const;
  // The mean of -log2 of the probability of each byte. Beyond the first window a byte has seen min_context
  // bytes or more.
  double bits_per_byte(std::span<const uint8_t> bytes, int64_t min_context = 0, const Progress& progress = {})
      const;
  // The same of a part of the run's own data: train, validation or test; of its first max_bytes, 0: all. For
  // a model that was loaded from its run.
  double bits_per_byte_of(const std::string& part, int64_t min_context = 0, int64_t max_bytes = 0,
                          const Progress& progress = {}) const;
  // Bits and entropy of each byte, in windows as bits_per_byte() has them.
  Entropies entropies(std::span<const uint8_t> bytes, int64_t min_context = 0, const Progress& progress = {})
      const;
  // Goes on from `beginning`, which may be empty; of one that is too long, its end.
  Generation generate(std::span<const uint8_t> beginning, const GenerateOptions& options = {}) const;
  // What `longstride compress` writes of such bytes. Only the same model on a device that computes the same
  // bits can decompress it; elsewhere decompress() throws. If it is portable, every CPU computes them; the model
  // must then be on the CPU, without int8, to compress as well as to decompress.
  std::vector<uint8_t> compress(std::span<const uint8_t> bytes, const Progress& progress = {},
                                const CompressOptions& options = {}) const;
  std::vector<uint8_t> decompress(std::span<const uint8_t> compressed, const Progress& progress = {}) const;

 private:
  friend Model train(std::span<const uint8_t> bytes, const TrainOptions& options);
  friend Model train_on_files(const TrainOptions& options);
  explicit Model(std::shared_ptr<const ModelState> state);
  std::shared_ptr<const ModelState> state_;
};

struct TrainProgress {
  int64_t step = 0;
  double done = 0;           // part of the training that is over, by steps or by time; 1: all
  double bits = 0;           // a byte, of this step's bytes before it learnt from them
  double learning_rate = 0;  // of this step
  double seconds = 0;        // since the beginning
  double gradient_norm = 0;  // before clipping
  std::optional<double> validation_bits = {};  // a byte, if this step was validated
};

struct TrainOptions {
  // Fields of a config as `longstride train --set` takes them: "model.context=256", "train.steps=1000". What
  // they leave open is chosen as for a config file; without train.steps or train.minutes training takes ten
  // minutes. data.path and the like are not for bytes in memory, and data.split is not used: all bytes are
  // learnt.
  std::vector<std::string> settings = {};
  // Called after each step; false ends the training, and the model is what was learnt by then.
  std::function<bool(const TrainProgress&)> after_step = {};
  // If not empty: a new directory that the trained model is saved in, for Model and the commands of
  // `longstride`.
  std::string run = {};
  // If not empty: a config file, whose fields count where `settings` do not name them.
  std::string config = {};
  // train_on_files() alone: goes on with the run if it is there. Its config is then that of the run.
  bool go_on = false;
  // train_on_files() alone: receives lines for people, warnings begin with "warning".
  std::function<void(const std::string&)> note = {};
};

// A model that has learnt `bytes`.
[[gnu::visibility("default")]] Model train(std::span<const uint8_t> bytes, const TrainOptions& options = {});

// The same on the files that data.path names, as `longstride train` does it in `run`: validation, checkpoints
// and curves included. An exception of after_step comes out when the last state is saved. No signal is caught.
// The model is the best by validation.
[[gnu::visibility("default")]] Model train_on_files(const TrainOptions& options);

// ---- patterns ----

// What positions see of earlier ones through several layers.
struct PatternReach {
  bool complete = false;     // every position sees every earlier one
  int64_t layers = 0;        // the fewest for that; all that were asked about if it is not complete
  int64_t blind_query = -1;  // if it is not: the position that misses most, ...
  int64_t blind_first = -1, blind_last = -1, blind_count = 0;  // ... and what it misses: from, to, how many
  bool exhaustive = false;                                     // false: of a sample of positions
  std::string text;                                            // for people
};

// `pattern` is a pattern or a cycle of layers, as in docs/patterns.md. `heads` 0: as few as the pattern needs.
[[gnu::visibility("default")]] PatternReach pattern_reach(std::string_view pattern, int64_t positions,
                                                          int64_t layers, int64_t heads = 0);
// A picture of which keys (columns) each query (row) may look at, as the text of an SVG file. Panels have
// sides of up to `pixels`.
[[gnu::visibility("default")]] std::string pattern_svg(std::string_view pattern, int64_t positions,
                                                       int64_t heads = 0, int64_t pixels = 480);
// The pattern of each layer of a cycle, in the form that Attention takes.
[[gnu::visibility("default")]] std::vector<std::string> pattern_layers(std::string_view pattern);

// ---- attention ----

enum class ElementType { f32, bf16, f16 };

// Somebody's memory of positions in sequences, on the device of the Attention that is given it. Strides are
// in elements, positive, the last 1; all 0: row by row without gaps.
struct ConstArray {
  const void* data = nullptr;
  ElementType type = ElementType::f32;
  std::array<int64_t, 4> shape{};  // batch, positions, heads, width
  std::array<int64_t, 4> stride{};
};
struct Array {
  void* data = nullptr;
  ElementType type = ElementType::f32;
  std::array<int64_t, 4> shape{};
  std::array<int64_t, 4> stride{};
  operator ConstArray() const { return {data, type, shape, stride}; }
};

// q and k have one shape, v and o another width if they like; one type for all: f32, bf16, or f16 on a GPU.
struct AttentionArrays {
  ConstArray q = {}, k = {}, v = {};
  Array o = {};                     // written by forward(), read by backward()
  float* log_sum_exp = nullptr;     // (batch, heads, positions), likewise; forward() does without
  std::optional<float> scale = {};  // of the scores; without: 1 / sqrt(width of q)
};

// A stream of a GPU of somebody else's, to work on in order with everything else there: the call returns before the work
// is done, and the arrays must stay until then.
struct AttentionStream {
  void* stream = nullptr;  // cudaStream_t of the Attention's device; null: the default stream
  void* scratch =
      nullptr;  // Attention::scratch_bytes() bytes there, aligned to 64, unused by others meanwhile
  int64_t scratch_bytes = 0;
};

// o[q] = sum over the k that the pattern allows q of softmax(scale * q . k) v[k]. A query that may look at
// nothing gets 0, and minus infinity as log_sum_exp.
class [[gnu::visibility("default")]] Attention {
 public:
  // A pattern of one layer, as in docs/patterns.md: "fixed:128,32", or "window:64|stride:64" for half of the
  // heads each. A text that is none throws Error that points at the fault.
  Attention(std::string_view pattern, int64_t positions, int64_t heads, const std::string& device = "cpu");
  Attention(const Attention&) = default;
  Attention& operator=(const Attention&) = default;

  bool allows(int64_t head, int64_t query, int64_t key) const;
  int64_t pairs() const;  // of query and key that are allowed, over all heads

  void forward(const AttentionArrays& arrays) const;
  // Overwrites dq, dk and dv with the gradients of q, k and v, from that of o.
  void backward(const AttentionArrays& arrays, const ConstArray& d_o, const Array& dq, const Array& dk,
                const Array& dv) const;

  // The same on a stream of the caller's. An Attention has room for one stream at a time: where calls on two streams
  // may overlap, have two. forward() needs log_sum_exp here.
  void forward(const AttentionArrays& arrays, const AttentionStream& on) const;
  void backward(const AttentionArrays& arrays, const ConstArray& d_o, const Array& dq, const Array& dk,
                const Array& dv, const AttentionStream& on) const;
  // What either needs of scratch for arrays of these types and shapes; their data is not looked at.
  int64_t scratch_bytes(const AttentionArrays& arrays) const;

 private:
  std::shared_ptr<const AttentionState> state_;
};

}  // namespace longstride
