#include "cli/entropy_file.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/eval/evaluate.h"
#include "longstride/report/heat_map.h"

#include "cli/output_file.h"
#include "cli/status_line.h"

namespace longstride::cli {

namespace {

constexpr int64_t kMostBytes = int64_t{1} << 30;  // they are all in memory, with two numbers each

bool is_page(const std::string& path) { return std::filesystem::path(path).extension() == ".html"; }

}  // namespace

void check_entropy_file(const std::string& path) {
  if (!is_page(path) && std::filesystem::path(path).extension() != ".csv")
    throw UsageError(
        fmt::format("--entropy {}: the ending says what to write, .csv a table, .html a heat map", path));
  prepare_output(path, "--entropy");
}

void write_entropy_file(const std::string& path, Transformer& model, const ModelParameters& parameters,
                        const Segment& segment, int64_t bytes, int64_t min_context,
                        const std::string& title) {
  const ImageShape& shape = segment.corpus->shape();
  const int64_t record = std::max<int64_t>(1, shape.bytes());
  const int64_t count = std::max(record, bytes / record * record);
  LONGSTRIDE_CHECK(count <= kMostBytes, "--entropy: {} bytes are more than {}; give --max-bytes", count,
                   kMostBytes);
  const std::vector<uint8_t> read = segment.read(0, count);
  StatusLine status("bits of every byte");
  const BatchRoom room(model);
  const ByteEntropies found = entropies_of(room, parameters, read, shape.bytes(), min_context,
                                           [&](int64_t done, int64_t total) { status.update(done, total); });
  status.clear();
  const ScoredBytes scored{read, found.bits, found.entropy};
  write_output(path, [&](ByteSink& sink) {
    if (is_page(path))
      write_heat_map(sink, scored, shape, title);
    else
      write_bits_table(sink, scored);
  });
}

}  // namespace longstride::cli
