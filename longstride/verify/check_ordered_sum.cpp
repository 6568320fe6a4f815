#include "longstride/ops/ordered_sum.h"
#include "longstride/ops/reference/ordered_sum.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t parts, n, place;
  std::string name() const { return fmt::format("{} parts of {}, place {}", parts, n, place); }
};

Floats run_ours(Device device, const Case& c, const Floats& parts, const Floats& own, bool unaligned,
                CheckList& list) {
  const int64_t padding = unaligned ? 3 : 16;
  Workbench bench(device, 0, unaligned ? 1 : 0);
  const Tensor rows = bench.put_rows(parts, c.parts, c.n, padding), sum = bench.put(own, {c.n});
  run(bench.context(), OrderedSum{rows, c.place, sum});
  list.same_bits("ordered_sum leaves its parts, " + c.name(), bench.get(rows), parts);
  return bench.get(sum);
}

void check_case(Device device, const Case& c, CheckList& list) {
  const Floats parts = normal_values(1, c.parts * c.n), own = normal_values(2, c.n);
  Floats naive = own;
  reference::ordered_sum(parts.data(), c.parts, c.n, c.place, naive.data());
  // The order is the whole point: the same bits, not nearly.
  list.same_bits("ordered_sum, " + c.name(), run_ours(device, c, parts, own, false, list), naive);
  list.same_bits("ordered_sum of unaligned memory, " + c.name(), run_ours(device, c, parts, own, true, list),
                 naive);
}

}  // namespace

std::vector<Check> check_ordered_sum(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> sizes =
      effort == Effort::quick ? std::vector<int64_t>{77} : std::vector<int64_t>{1, 8, 77, 4096, 16384, 40001};
  for (const int64_t n : sizes)
    for (const int64_t parts : {1, 2, 7})
      for (int64_t place = 0; place <= parts; ++place) check_case(device, {parts, n, place}, list);
  return list.take();
}

}  // namespace longstride::verify
