#include "longstride/ops/reference/rows.h"
#include "longstride/ops/rows.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t rows, width;
  DType dtype;
  std::string name() const { return fmt::format("{}, {} x {}", name_of(dtype), rows, width); }
};

// Every third row, from the back.
std::vector<int32_t> numbers_of(int64_t rows) {
  std::vector<int32_t> numbers;
  for (int64_t row = rows - 1; row >= 0; row -= 3) numbers.push_back(static_cast<int32_t>(row));
  return numbers;
}

void check_case(Device device, const Case& c, bool unaligned, CheckList& list) {
  std::vector<int32_t> numbers = numbers_of(c.rows);
  const auto count = static_cast<int64_t>(numbers.size());
  const Floats wide = as_stored(normal_values(1, c.rows * c.width), c.dtype),
               dense = as_stored(normal_values(2, count * c.width), c.dtype);
  Workbench bench(device, 0, unaligned ? 1 : 0);
  const Tensor on_device = bench.poisoned(DType::i32, {count});
  copy(Tensor(numbers.data(), DType::i32, {count}), on_device);
  const int64_t padding = unaligned ? 3 : 16;
  const auto rows = [&] { return bench.put_rows(wide, c.rows, c.width, padding, c.dtype); };
  const Tensor from = rows(), placed = rows(), added = rows();
  const Tensor picked = bench.poisoned(c.dtype, {count, c.width}),
               own = bench.put(dense, {count, c.width}, c.dtype);
  run(bench.context(), PickRows{from, on_device, picked});
  run(bench.context(), PlaceRows{own, on_device, placed});
  run(bench.context(), PlaceRows{own, on_device, added, true});
  const std::string name = c.name() + (unaligned ? ", unaligned" : "");
  Floats expected(static_cast<size_t>(count * c.width));
  reference::pick_rows(wide.data(), numbers.data(), count, c.width, expected.data());
  list.same_bits("pick_rows, " + name, bench.get(picked), expected);
  for (const bool adds : {false, true}) {
    Floats there = wide;
    reference::place_rows(dense.data(), numbers.data(), count, c.width, adds, there.data());
    list.same_bits((adds ? "place_rows adding, " : "place_rows, ") + name, bench.get(adds ? added : placed),
                   as_stored(there, c.dtype));
  }
  list.require("place_rows leaves what lies beside its rows, " + name,
               bench.padding_is_intact(placed, padding) && bench.padding_is_intact(added, padding));
}

}  // namespace

std::vector<Check> check_rows(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> widths =
      effort == Effort::quick ? std::vector<int64_t>{40} : std::vector<int64_t>{1, 8, 40, 130, 512, 2056};
  for (const DType dtype : stored_dtypes(device))
    for (const int64_t width : widths)
      for (const bool unaligned : {false, true}) check_case(device, {23, width, dtype}, unaligned, list);
  return list.take();
}

}  // namespace longstride::verify
