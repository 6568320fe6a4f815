#include "longstride/data/yardsticks.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <archive.h>
#include <archive_entry.h>

#include "longstride/base/check.h"

namespace longstride {

namespace {

// The sum of c log2 c over the counts c of equal elements, by their highest `bits`.
double sum_of_counts(const std::vector<uint32_t>& sorted, int bits) {
  const auto key = [&](uint32_t gram) { return bits == 0 ? 0 : gram >> (32 - bits); };
  double sum = 0;
  for (size_t begin = 0, end = 0; begin < sorted.size(); begin = end) {
    while (end < sorted.size() && key(sorted[end]) == key(sorted[begin])) ++end;
    const auto count = static_cast<double>(end - begin);
    sum += count * std::log2(count);
  }
  return sum;
}

la_ssize_t count_bytes(archive*, void* total, const void*, size_t bytes) {
  *static_cast<int64_t*>(total) += static_cast<int64_t>(bytes);
  return static_cast<la_ssize_t>(bytes);
}

int64_t xz_bytes(std::span<const uint8_t> bytes) {
  int64_t total = 0;
  const std::unique_ptr<archive, int (*)(archive*)> writer(archive_write_new(), archive_write_free);
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(),
                                                                       archive_entry_free);
  const auto check = [&](la_ssize_t result) {
    LONGSTRIDE_CHECK(result >= 0, "cannot compress with xz: {}", archive_error_string(writer.get()));
  };
  check(archive_write_set_format_raw(writer.get()));
  check(archive_write_add_filter_xz(writer.get()));
  check(archive_write_set_filter_option(writer.get(), "xz", "compression-level", "9"));
  check(archive_write_set_bytes_in_last_block(writer.get(), 1));
  check(archive_write_open(writer.get(), &total, nullptr, count_bytes, nullptr));
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  check(archive_write_header(writer.get(), entry.get()));
  check(archive_write_data(writer.get(), bytes.data(), bytes.size()));
  check(archive_write_close(writer.get()));
  return total;
}

}  // namespace

Yardsticks measure_yardsticks(std::span<const uint8_t> bytes) {
  LONGSTRIDE_CHECK(!bytes.empty(), "there are no bytes to measure");
  Yardsticks yardsticks;
  // Each byte with the three before it in the higher bits, then each with fewer before it, so that every
  // order is read from its own sorted list.
  std::vector<uint32_t> grams(bytes.size());
  for (int order = 0; order < 4; ++order) {
    const size_t first = std::min<size_t>(static_cast<size_t>(order), bytes.size() - 1);
    grams.clear();
    for (size_t i = first; i < bytes.size(); ++i) {
      uint32_t gram = 0;
      for (size_t back = std::min<size_t>(static_cast<size_t>(order), i) + 1; back-- > 0;)
        gram = gram << 8 | bytes[i - back];
      grams.push_back(gram << (24 - 8 * order));
    }
    std::sort(grams.begin(), grams.end());
    yardsticks.entropies[static_cast<size_t>(order)] =
        (sum_of_counts(grams, 8 * order) - sum_of_counts(grams, 8 * order + 8)) /
        static_cast<double>(grams.size());
  }
  yardsticks.xz_bits = 8 * static_cast<double>(xz_bytes(bytes)) / static_cast<double>(bytes.size());
  return yardsticks;
}

}  // namespace longstride
