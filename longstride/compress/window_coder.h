// Turns bytes into code and back with a model's predictions.
//
// The data is cut into windows of the model's context. Each is predicted without the ones before it, as in an
// evaluation. As many windows as the decoder has sequences go side by side. At each position one coder codes
// their bytes one after the other, so that a window adds no bytes of its own to the code.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longstride/compress/predictor.h"
#include "longstride/decode/decoder.h"

namespace longstride {

// Told how many bytes more are done.
using CodingProgress = std::function<void(int64_t bytes)>;

struct Code {
  std::vector<uint8_t> bytes;
  double bits = 0;  // sum of -log2 p of what was coded: what a perfect coder would need
};

class WindowCoder {
 public:
  // `predictor` must outlive it, and have at least as many positions as the longest window.
  explicit WindowCoder(Predictor& predictor) : predictor_(&predictor) {}
  explicit WindowCoder(Decoder& decoder);

  // Throws Error if a prediction is not finite.
  Code encode(std::span<const uint8_t> data, const CodingProgress& progress = {});
  // Fills `data` with the bytes that encode() was given, if the decoder computes the same bits as it did then;
  // else with arbitrary bytes.
  void decode(std::span<const uint8_t> code, std::span<uint8_t> data, const CodingProgress& progress = {});

  // 16 hexadecimal digits that depend on every bit of the decoder's predictions for fixed bytes. They differ
  // on a device that computes other bits.
  std::string probe();
  static constexpr int64_t kProbePositions = 64;

 private:
  // Calls visit(logits, byte) for each byte of `data` in the order of the code. visit may fill in the byte.
  template <class Byte, class Visit>
  void walk(std::span<Byte> data, const CodingProgress& progress, Visit&& visit);

  std::unique_ptr<Predictor> of_decoder_;
  Predictor* predictor_;
  std::vector<uint8_t> previous_;  // of the windows that do not rest
};

}  // namespace longstride
