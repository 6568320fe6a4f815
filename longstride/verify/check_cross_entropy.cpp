#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/reference/cross_entropy.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

void check_case(Device device, int64_t rows, int64_t classes, double deviation, CheckList& list) {
  const Floats logits = normal_values(1, rows * classes, deviation);
  const Bytes targets = random_bytes(2, rows, classes);
  const float scale = 0.37f;
  const std::string name = fmt::format("{} x {}, deviation {}", rows, classes, deviation);

  Floats naive_loss(rows), naive(logits.size());
  Doubles true_loss(rows), truth(logits.size());
  reference::cross_entropy(logits.data(), targets.data(), rows, classes, scale, naive_loss.data(),
                           naive.data());
  reference::cross_entropy(widened(logits).data(), targets.data(), rows, classes, double{scale},
                           true_loss.data(), truth.data());

  Workbench bench(device);
  const Tensor from = bench.put(logits, {rows, classes}), target = bench.put(targets, {rows});
  const Tensor loss = bench.poisoned(DType::f32, {rows}), loss_too = bench.poisoned(DType::f32, {rows});
  const Tensor dlogits = bench.poisoned(DType::f32, {rows, classes});
  run(bench.context(), CrossEntropyForward{from, target, loss});
  run(bench.context(), CrossEntropyBackward{from, target, scale, loss_too, dlogits});
  // If classes == 1 the loss is 0, and there is nothing to divide by.
  list.compare("cross_entropy loss, " + name, bench.get(loss), naive_loss, true_loss);
  list.compare("cross_entropy dlogits, " + name, bench.get(dlogits), naive, truth);
  list.same_bits("cross_entropy loss of the backward, " + name, bench.get(loss), bench.get(loss_too));
  const Floats gradient = bench.get(dlogits);
  Workbench unaligned(device, 0, 1);
  const Tensor elsewhere = unaligned.poisoned(DType::f32, {rows, classes});
  run(unaligned.context(),
      CrossEntropyBackward{unaligned.put(logits, {rows, classes}), unaligned.put(targets, {rows}), scale / 2,
                           unaligned.poisoned(DType::f32, {rows}), elsewhere, unaligned.put(Floats{2}, {1})});
  list.same_bits("cross_entropy with half the scale, times two, of unaligned memory, " + name, gradient,
                 unaligned.get(elsewhere));
  run(bench.context(), CrossEntropyBackward{from, target, scale, loss_too, from});
  list.same_bits("cross_entropy in place, " + name, gradient, bench.get(from));
}

}  // namespace

std::vector<Check> check_cross_entropy(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> row_counts =
      quick ? std::vector<int64_t>{17} : std::vector<int64_t>{1, 3, 17, 130};
  const std::vector<int64_t> classes =
      quick ? std::vector<int64_t>{256} : std::vector<int64_t>{1, 2, 5, 16, 33, 256, 300};
  for (int64_t rows : row_counts)
    for (int64_t width : classes)
      for (double deviation : {1.0, 1e-3, 30.0, 1e4}) check_case(device, rows, width, deviation, list);
  return list.take();
}

}  // namespace longstride::verify
