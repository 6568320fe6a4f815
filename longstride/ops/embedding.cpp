#include "longstride/ops/embedding.h"

#include <algorithm>

namespace longstride {

namespace {

int64_t bytes_of(const EmbeddingTables& tables) {
  int64_t bytes = tables.token.bytes() + tables.start.bytes();
  for (const Tensor& axis : tables.axes) bytes += axis.bytes();
  return bytes;
}

void check_tables(const Arguments& arguments, const EmbeddingTables& tables) {
  arguments.dense("token table", tables.token, DType::f32, {kAny, kAny});
  const int64_t width = tables.token.shape[1];
  arguments.dense("start", tables.start, DType::f32, {width});
  for (const Tensor& axis : tables.axes) arguments.dense("position table", axis, DType::f32, {kAny, width});
}

void check_first(const Arguments& arguments, const Tensor& tokens, int64_t first, bool positioned) {
  LONGSTRIDE_CHECK(
      first == 0 || (first > 0 && tokens.shape[0] == 1 && !positioned),
      "{}: slots from {} on of {} sequences{}; only one sequence can begin later than 0, without "
      "position tables in the backward",
      arguments.op(), first, tokens.shape[0], positioned ? " with position tables" : "");
}

}  // namespace

OpWork EmbeddingForward::work() const { return {.bytes = y.bytes()}; }

void EmbeddingForward::check(const Arguments& arguments) const {
  check_tables(arguments, tables);
  arguments.dense("tokens", tokens, DType::u8, {kAny, kAny});
  arguments.dense("y", y, DType::f32, {tokens.count(), tables.token.shape[1]});
  check_first(arguments, tokens, first, false);
  arguments.below("tokens", tokens, tables.token.shape[0]);
}

OpWork EmbeddingOne::work() const { return {.bytes = y.bytes()}; }

void EmbeddingOne::check(const Arguments& arguments) const {
  check_tables(arguments, tables);
  const int64_t rows = static_cast<int64_t>(positions.size()), classes = tables.token.shape[0];
  arguments.dense("y", y, DType::f32, {rows, tables.token.shape[1]});
  for (int64_t row = 0; row < rows; ++row) {
    LONGSTRIDE_CHECK(positions[row] >= -1, "embedding_one: position is {}, must be 0 or more, or -1",
                     positions[row]);
    if (positions[row] <= 0) continue;
    arguments.dense("previous", previous, DType::u8, {rows});
    const uint8_t token = previous.as<uint8_t>()[row];
    LONGSTRIDE_CHECK(token < classes, "embedding_one: previous[{}] is {}, must be below {}", row, token,
                     classes);
  }
}

OpWork EmbeddingBackward::work() const { return {.bytes = dy.bytes() + 2 * bytes_of(gradients)}; }

void EmbeddingBackward::check(const Arguments& arguments) const {
  check_tables(arguments, gradients);
  arguments.dense("tokens", tokens, DType::u8, {kAny, kAny});
  arguments.dense("dy", dy, DType::f32, {tokens.count(), gradients.token.shape[1]});
  check_first(arguments, tokens, first, !gradients.axes.empty());
  arguments.below("tokens", tokens, gradients.token.shape[0]);
}

int64_t embedding_backward_scratch_bytes(Device device, int64_t batch, int64_t length, int64_t vocabulary,
                                         int64_t width, std::span<const int64_t> extents) {
  const auto shaped = [&](DType dtype, std::initializer_list<int64_t> shape) {
    return Tensor(nullptr, dtype, shape, device.kind);
  };
  const Tensor tokens = shaped(DType::u8, {batch, length}), dy = shaped(DType::f32, {batch * length, width});
  EmbeddingTables tables;
  tables.token = shaped(DType::f32, {vocabulary, width}), tables.start = shaped(DType::f32, {width});
  for (const int64_t extent : extents) tables.axes.push_back(shaped(DType::f32, {extent, width}));
  int64_t most = 0;
  for (const PositionShift shift : {PositionShift::before, PositionShift::after}) {
    tables.shift = shift;
    most = std::max(most, scratch_bytes(device, EmbeddingBackward{tokens, dy, tables}));
  }
  return most;
}

}  // namespace longstride
