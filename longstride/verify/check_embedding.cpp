#include <algorithm>

#include "longstride/ops/embedding.h"
#include "longstride/ops/reference/embedding.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t batch, length, classes, width;
  std::vector<int64_t> extents;
  PositionShift shift;
};

using HostTables = reference::EmbeddingTables<float>;

HostTables sample_tables(const Case& c) {
  HostTables tables{c.width, normal_values(1, c.classes * c.width), normal_values(2, c.width), c.extents, {},
                    c.shift};
  for (size_t axis = 0; axis < c.extents.size(); ++axis)
    tables.axes.push_back(normal_values(static_cast<uint32_t>(3 + axis), c.extents[axis] * c.width));
  return tables;
}

reference::EmbeddingTables<double> widened_tables(const HostTables& from) {
  reference::EmbeddingTables<double> to{from.width, widened(from.token), widened(from.start), from.extents,
                                        {},         from.shift};
  for (const Floats& axis : from.axes) to.axes.push_back(widened(axis));
  return to;
}

EmbeddingTables put_tables(Workbench& bench, const HostTables& from) {
  const int64_t width = from.width;
  EmbeddingTables to;
  to.token = bench.put(from.token, {static_cast<int64_t>(from.token.size()) / width, width});
  to.start = bench.put(from.start, {width});
  for (size_t axis = 0; axis < from.axes.size(); ++axis)
    to.axes.push_back(bench.put(from.axes[axis], {from.extents[axis], width}));
  to.shift = from.shift;
  return to;
}

// The rows of embedding_forward, computed one slot at a time; sequences begin one after another.
Floats one_by_one(Workbench& bench, const Case& c, const Bytes& tokens, const EmbeddingTables& tables) {
  Floats rows(static_cast<size_t>(c.batch * c.length * c.width));
  for (int64_t time = 0; time < c.length + c.batch - 1; ++time) {
    Bytes previous(static_cast<size_t>(c.batch));
    std::vector<int64_t> positions;
    for (int64_t b = 0; b < c.batch; ++b) {
      positions.push_back(time < b || time >= b + c.length ? -1 : time - b);
      if (positions[b] > 0) previous[b] = tokens[b * c.length + positions[b] - 1];
    }
    const Tensor row = bench.poisoned(DType::f32, {c.batch, c.width});
    run(bench.context(), EmbeddingOne{bench.put(previous, {c.batch}), positions, tables, row});
    const Floats values = bench.get(row);
    for (int64_t b = 0; b < c.batch; ++b) {
      const auto from = values.begin() + b * c.width;
      if (positions[b] >= 0)
        std::copy_n(from, c.width, rows.begin() + (b * c.length + positions[b]) * c.width);
      else if (std::any_of(from, from + c.width, [](float value) { return value == value; }))
        return {};  // written while it rests
    }
  }
  return rows;
}

void check_case(Device device, const Case& c, CheckList& list) {
  const int64_t rows = c.batch * c.length;
  const Bytes tokens = random_bytes(20, rows, c.classes);
  HostTables host = sample_tables(c);
  reference::EmbeddingTables<double> wide = widened_tables(host);
  const std::string name =
      fmt::format("B {} N {} V {} d {}, {} axes, shift {}", c.batch, c.length, c.classes, c.width,
                  c.extents.size(), c.shift == PositionShift::before ? "before" : "after");
  Workbench bench(device,
                  embedding_backward_scratch_bytes(device, c.batch, c.length, c.classes, c.width, c.extents));
  const EmbeddingTables tables = put_tables(bench, host);
  const Tensor token = bench.put(tokens, {c.batch, c.length});
  const Tensor y = bench.poisoned(DType::f32, {rows, c.width});
  run(bench.context(), EmbeddingForward{token, tables, y});
  Floats naive(static_cast<size_t>(rows * c.width));
  Doubles truth(naive.size());
  reference::embedding_forward(tokens.data(), host, c.batch, c.length, naive.data());
  reference::embedding_forward(tokens.data(), wide, c.batch, c.length, truth.data());
  const Floats ours = bench.get(y);
  list.compare("embedding forward, " + name, ours, naive, truth);

  if (device.kind == DeviceKind::cpu)
    list.same_bits("embedding_one, " + name, ours, one_by_one(bench, c, tokens, tables));

  // Gradients are added to tables that already hold something.
  const Floats dy = normal_values(30, rows * c.width);
  const Tensor d_out = bench.put(dy, {rows, c.width});
  const EmbeddingTables gradients = put_tables(bench, host), again = put_tables(bench, host);
  run(bench.context(), EmbeddingBackward{token, d_out, gradients});
  run(bench.context(), EmbeddingBackward{token, d_out, again});
  reference::embedding_backward(tokens.data(), dy.data(), host, c.batch, c.length);
  reference::embedding_backward(tokens.data(), widened(dy).data(), wide, c.batch, c.length);
  list.compare("embedding d token, " + name, bench.get(gradients.token), host.token, wide.token);
  list.compare("embedding d start, " + name, bench.get(gradients.start), host.start, wide.start);
  list.same_bits("embedding d token twice, " + name, bench.get(gradients.token), bench.get(again.token));
  list.same_bits("embedding d start twice, " + name, bench.get(gradients.start), bench.get(again.start));
  for (size_t axis = 0; axis < gradients.axes.size(); ++axis) {
    list.compare(fmt::format("embedding d axis {}, {}", axis, name), bench.get(gradients.axes[axis]),
                 host.axes[axis], wide.axes[axis]);
    list.same_bits(fmt::format("embedding d axis {} twice, {}", axis, name), bench.get(gradients.axes[axis]),
                   bench.get(again.axes[axis]));
  }
}

// One sequence in two parts, as ranks that share it compute it. Adds to the gradients part by part.
void check_parts(Device device, const Case& c, int64_t cut, CheckList& list) {
  const Bytes tokens = random_bytes(21, c.length, c.classes);
  HostTables host = sample_tables(c);
  reference::EmbeddingTables<double> wide = widened_tables(host);
  const std::string name = fmt::format("N {} cut at {} V {} d {}", c.length, cut, c.classes, c.width);
  Workbench bench(device, embedding_backward_scratch_bytes(device, 1, c.length, c.classes, c.width, {}));
  const EmbeddingTables tables = put_tables(bench, host), gradients = put_tables(bench, host);
  const Tensor token = bench.put(tokens, {c.length});
  const Tensor y = bench.poisoned(DType::f32, {c.length, c.width}),
               whole = bench.poisoned(DType::f32, {c.length, c.width});
  const Floats dy = normal_values(30, c.length * c.width);
  const Tensor d_out = bench.put(dy, {c.length, c.width});
  run(bench.context(), EmbeddingForward{token.reshaped({1, c.length}), tables, whole});
  for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, std::pair{cut, c.length}}) {
    const Tensor part = token.rows(begin, end).reshaped({1, end - begin});
    run(bench.context(), EmbeddingForward{part, tables, y.rows(begin, end), begin});
    run(bench.context(), EmbeddingBackward{part, d_out.rows(begin, end), gradients, begin});
  }
  list.same_bits("embedding forward in parts, " + name, bench.get(whole), bench.get(y));
  reference::embedding_backward(tokens.data(), dy.data(), host, 1, c.length);
  reference::embedding_backward(tokens.data(), widened(dy).data(), wide, 1, c.length);
  list.compare("embedding d token in parts, " + name, bench.get(gradients.token), host.token, wide.token);
  list.compare("embedding d start in parts, " + name, bench.get(gradients.start), host.start, wide.start);
}

}  // namespace

std::vector<Check> check_embedding(Device device, Effort effort) {
  CheckList list;
  for (PositionShift shift : {PositionShift::before, PositionShift::after}) {
    check_case(device, {2, 24, 256, 17, {2, 4, 3}, shift}, list);
    if (effort == Effort::quick) continue;
    check_case(device, {1, 1, 1, 1, {}, shift}, list);
    check_case(device, {3, 1, 5, 64, {1}, shift}, list);
    check_case(device, {2, 31, 256, 5, {7}, shift},
               list);  // longer than the axis: the first coordinate wraps
    check_case(device, {2, 130, 7, 65, {5, 13}, shift}, list);  // beyond the axes' product
    check_case(device, {1, 1000, 256, 130, {32, 32}, shift}, list);
    check_case(device, {2, 1536, 256, 40, {3, 512}, shift}, list);  // many slots for few coordinates
    check_case(device, {3, 300, 256, 264, {300}, shift}, list);
    check_case(device, {70, 9, 11, 24, {2, 2, 5}, shift}, list);
    check_case(device, {2, 10, 3, 8, {4, 1000}, shift}, list);  // an axis longer than the sequence
  }
  check_parts(device, {1, 24, 256, 17, {}, PositionShift::after}, 9, list);
  if (effort != Effort::quick) check_parts(device, {1, 1000, 7, 130, {}, PositionShift::after}, 512, list);
  return list.take();
}

}  // namespace longstride::verify
