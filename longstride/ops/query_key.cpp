#include "longstride/ops/query_key.h"

namespace longstride {

namespace {

void check_heads(const Arguments& arguments, const QueryKey& t) {
  const char* op = arguments.op();
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

OpWork QueryKeyForward::work() const { return {.bytes = moved(t)}; }

void QueryKeyForward::check(const Arguments& arguments) const { check_heads(arguments, t); }

OpWork QueryKeyAt::work() const { return {.bytes = moved(t)}; }

void QueryKeyAt::check(const Arguments& arguments) const {
  check_heads(arguments, t);
  LONGSTRIDE_CHECK(static_cast<int64_t>(positions.size()) == t.x.shape[0],
                   "query_key_at: {} positions for {} rows", positions.size(), t.x.shape[0]);
  for (const int64_t position : positions)
    LONGSTRIDE_CHECK(position >= 0 && (!t.rotation || position < t.rotation.shape[0]),
                     "query_key_at: position is {}, must be below {}", position, t.rotation.shape[0]);
}

OpWork QueryKeyBackward::work() const {
  return {.bytes = moved(t) + (t.reciprocal_rms ? 1 : 0) * t.x.bytes()};
}

void QueryKeyBackward::check(const Arguments& arguments) const {
  check_heads(arguments, t);
  arguments.rows("dx", dx, t.x.dtype, {t.x.shape[0], t.x.shape[1]});
}

}  // namespace longstride
