#include "longstride/sample/prime.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "longstride/data/modalities/modality.h"

namespace longstride {

std::vector<uint8_t> beginning_of_prime(std::vector<uint8_t> prime, const PrimePart& part,
                                        const DataConfig& data, const ImageShape& shape) {
  const Modality& modality = modality_of(data);
  // Whoever says how many seconds means these.
  const bool half = modality.records || (part.whole_window && part.seconds == 0);
  const double fraction = part.fraction > 0 ? part.fraction : half ? 0.5 : 1.0;
  if (modality.records) {
    // Whole rows: a picture is completed from its upper part.
    const auto rows = static_cast<int64_t>(std::llround(fraction * static_cast<double>(shape.height)));
    prime.resize(rows * shape.width * shape.channels);
    return prime;
  }
  if (fraction < 1)
    prime.resize(static_cast<size_t>(std::ceil(fraction * static_cast<double>(prime.size()))));
  if (part.seconds > 0) {
    const double wanted = part.seconds * static_cast<double>(data.sample_rate);
    if (wanted < static_cast<double>(prime.size())) prime.resize(static_cast<size_t>(std::max(1.0, wanted)));
  }
  return prime;
}

std::vector<uint8_t> end_of_prime(std::vector<uint8_t> prime, int64_t length, const Windows& windows,
                                  const std::function<void(const std::string& line)>& note) {
  const int64_t size = std::ssize(prime);
  if (size < length && size <= windows.context) return prime;
  const bool one_window = length <= windows.context;
  const int64_t kept = one_window ? length / 2 : std::max<int64_t>(1, windows.context - windows.hop);
  if (note)
    note(fmt::format("the prime has {} bytes, {} {}: going on from its last {}", size,
                     one_window ? "a sample" : "the model's context", one_window ? length : windows.context,
                     kept));
  prime.erase(prime.begin(), prime.end() - kept);
  return prime;
}

}  // namespace longstride
