// Normalised and rotated queries and keys: checks of arguments and the choice of an implementation by device.
#include "longstride/ops/query_key.h"

#include "longstride/ops/arguments.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

void check(const Arguments& arguments, const char* op, const QueryKey& t) {
  arguments.product("x", t.x.dtype);
  arguments.rows("x", t.x, t.x.dtype, {kAny, kAny});
  LONGSTRIDE_CHECK(t.heads >= 1 && t.x.shape[1] % (2 * t.heads) == 0,
                   "{}: x is {}, must have 2 * heads = {} times the width of a head", op, t.x.describe(),
                   2 * t.heads);
  const int64_t width = t.x.shape[1] / (2 * t.heads);
  if (t.rotation) {
    arguments.dense("rotation", t.rotation, DType::f32, {kAny, width});
    LONGSTRIDE_CHECK(width % 2 == 0 && t.rotation.shape[0] >= 1,
                     "{}: heads of {} channels and a rotation {}: pairs of channels turn, at one position or "
                     "more",
                     op, width, t.rotation.describe());
  }
  if (t.reciprocal_rms)
    arguments.dense("reciprocal_rms", t.reciprocal_rms, DType::f32, {t.x.shape[0], 2 * t.heads});
}

int64_t moved(const QueryKey& t) { return 2 * t.x.bytes() + t.reciprocal_rms.bytes(); }

}  // namespace

void query_key_forward(const OpContext& context, const QueryKey& t) {
  const OpTimer timer("query_key_forward", {.bytes = moved(t)});
  check(Arguments("query_key_forward", context.device), "query_key_forward", t);
  if (on_gpu(context.device)) return cuda::query_key_forward(context, t);
  cpu::query_key_forward(context, t, {});
}

void query_key_at(const OpContext& context, const QueryKey& t, std::span<const int64_t> positions) {
  const OpTimer timer("query_key_at", {.bytes = moved(t)});
  LONGSTRIDE_CHECK(!on_gpu(context.device), "query_key_at: runs on the CPU, not on {}",
                   name_of(context.device));
  check(Arguments("query_key_at", context.device), "query_key_at", t);
  LONGSTRIDE_CHECK(static_cast<int64_t>(positions.size()) == t.x.shape[0],
                   "query_key_at: {} positions for {} rows", positions.size(), t.x.shape[0]);
  for (const int64_t position : positions)
    LONGSTRIDE_CHECK(position >= 0 && (!t.rotation || position < t.rotation.shape[0]),
                     "query_key_at: position is {}, must be below {}", position, t.rotation.shape[0]);
  cpu::query_key_forward(context, t, positions);
}

void query_key_backward(const OpContext& context, const QueryKey& t, const Tensor& dx) {
  const OpTimer timer("query_key_backward", {.bytes = moved(t) + (t.reciprocal_rms ? 1 : 0) * t.x.bytes()});
  const Arguments arguments("query_key_backward", context.device);
  check(arguments, "query_key_backward", t);
  arguments.rows("dx", dx, t.x.dtype, {t.x.shape[0], t.x.shape[1]});
  if (on_gpu(context.device)) return cuda::query_key_backward(context, t, dx);
  cpu::query_key_backward(context, t, dx);
}

}  // namespace longstride
