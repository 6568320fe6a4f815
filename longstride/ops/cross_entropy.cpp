#include "longstride/ops/cross_entropy.h"

namespace longstride {

namespace {

void check_rows(const Arguments& arguments, const Tensor& logits, const Tensor& targets, const Tensor& loss) {
  arguments.dense("logits", logits, DType::f32, {kAny, kAny});
  arguments.dense("targets", targets, DType::u8, {logits.shape[0]});
  arguments.dense("loss", loss, DType::f32, {logits.shape[0]});
}

}  // namespace

OpWork CrossEntropyForward::work() const { return {.bytes = logits.bytes()}; }

void CrossEntropyForward::check(const Arguments& arguments) const {
  check_rows(arguments, logits, targets, loss);
  arguments.below("targets", targets, logits.shape[1]);
}

OpWork CrossEntropyBackward::work() const { return {.bytes = logits.bytes() + dlogits.bytes()}; }

void CrossEntropyBackward::check(const Arguments& arguments) const {
  check_rows(arguments, logits, targets, loss);
  arguments.dense("dlogits", dlogits, DType::f32, {logits.shape[0], logits.shape[1]});
  if (times) arguments.dense("times", times, DType::f32, {1});
  arguments.below("targets", targets, logits.shape[1]);
}

}  // namespace longstride
