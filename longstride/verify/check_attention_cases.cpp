// The patterns, lengths and widths over which attention is checked.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "longstride/pattern/terms/table.h"
#include "longstride/verify/check_attention.h"

namespace longstride::verify {

std::string AttentionCase::name(const char* what) const {
  return fmt::format("attention {}, {}, n {}, B {}, H {}, D {}/{}, {}{}{}", what, pattern, n, shape.batch,
                     shape.heads, shape.width, shape.v_width, name_of(dtype),
                     gap == 0 ? "" : fmt::format(", gaps of {}", gap),
                     gain == 1 ? "" : fmt::format(", q * {}", gain));
}

float AttentionCase::scale() const {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(shape.width)));
}

std::vector<DType> narrow_dtypes(Device device) {
  if (device.kind == DeviceKind::cuda) return {DType::bf16, DType::f16};
  return {DType::bf16};
}

namespace {

const char* const kUnions[] = {"window:1",
                               "summary:8,2,1",
                               "strided:8",
                               "fixed:8,2",
                               "spread-fixed:8,2",
                               "window:70+prefix:16",
                               "window:4|stride:4",
                               "summary:8,3|block:6",
                               "stride:7+summary:8,2",
                               "stride:300",
                               "fixed:64,16",
                               "strided:64",
                               "block:100+summary:100,30",
                               "dilated:3,5+stride:8+window:3",
                               "stride:16+prefix:5+previous-row:10"};

// The first example of each kind of term.
std::vector<const char*> examples_of_kinds() {
  std::vector<const char*> patterns;
  for (const terms::Entry& entry : terms::table()) patterns.push_back(entry.examples.front());
  return patterns;
}

int64_t groups_of(const std::string& pattern) { return 1 + std::count(pattern.begin(), pattern.end(), '|'); }

}  // namespace

std::vector<AttentionCase> attention_cases(Device device, Effort effort) {
  const AttentionShape shapes[] = {{1, 2, 8, 8},   {2, 2, 5, 9},   {1, 1, 64, 64},
                                   {2, 4, 32, 64}, {1, 2, 16, 80}, {2, 1, 17, 33}};
  std::vector<AttentionCase> list;
  size_t problems = 0;
  const auto add = [&](const std::string& pattern, int64_t n, AttentionShape shape, float gain = 1) {
    shape.heads = std::max(shape.heads, groups_of(pattern));
    // Gaps of 8 keep rows aligned, gaps of 3 do not.
    const int64_t gaps[] = {0, 3, 0, 8};
    const int64_t gap = gaps[problems++ % 4];
    list.push_back({pattern, n, shape, gap, gain, DType::f32});
    for (const DType dtype : narrow_dtypes(device))
      if (dtype == DType::bf16 || gain < 1000) list.push_back({pattern, n, shape, gap, gain, dtype});
  };
  const std::vector<const char*> examples = examples_of_kinds();
  size_t turn = 0, union_turn = 0;  // two, so that a new kind does not change the shapes of the unions
  if (effort == Effort::quick) {
    const int64_t lengths[] = {77, 16, 130};
    for (const char* pattern : examples) add(pattern, lengths[turn % 3], shapes[turn % 2]), ++turn;
    for (const char* pattern : kUnions)
      add(pattern, lengths[union_turn % 3], shapes[union_turn % 2]), ++union_turn;
    add("strided:64", 257, shapes[4]);
    if (device.kind == DeviceKind::cuda) {
      add("fixed:64,16", 130, {1, 2, 64, 64});
      add("strided:48", 130, {1, 1, 64, 128});
      add("window:100", 130, {1, 1, 128, 128});
      add("window:9+summary:48,16,1", 140, {1, 2, 64, 64});
    }
  } else {
    // Lengths and shapes take turns at different speeds, so that all combinations occur.
    for (const int64_t n : {1, 2, 7, 33, 64, 77, 130, 257}) {
      for (const char* pattern : examples) add(pattern, n, shapes[turn++ % 6]);
      for (const char* pattern : kUnions) add(pattern, n, shapes[union_turn++ % 6]);
    }
    for (const AttentionShape& shape : shapes)
      for (const char* pattern : {"strided:24", "fixed:24,8", "dense"})
        add(pattern, 200, shape), add(pattern, 63, shape);
  }
  // The widths that the GPU has kernels for, and some that are padded to these.
  const AttentionShape gpu_shapes[] = {{2, 3, 64, 64}, {1, 2, 32, 32}, {1, 2, 64, 128}, {1, 1, 128, 128},
                                       {2, 1, 40, 24}, {1, 1, 24, 48}, {1, 2, 96, 96},  {1, 1, 136, 64}};
  if (device.kind == DeviceKind::cuda)
    for (const AttentionShape& shape : gpu_shapes)
      for (const char* pattern : {"fixed:64,16", "strided:48", "window:100", "block:128+summary:128,32",
                                  // Ends after a run that is not the last of its block.
                                  "window:9+spread-summary:48,16"})
        add(pattern, 300, shape), add(pattern, 513, shape);
  // Scores near 80, where exp leaves the range of f32, and far beyond.
  for (const float gain : {25.0f, 3000.0f})
    add("window:40+stride:16", 77, shapes[2], gain), add("dense", 130, shapes[1], gain);
  return list;
}

}  // namespace longstride::verify
