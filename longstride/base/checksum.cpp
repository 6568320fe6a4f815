#include "longstride/base/checksum.h"

#include <xxhash.h>

#include "longstride/base/check.h"

namespace longstride {

namespace {
std::string as_hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }
}  // namespace

Checksum::Checksum() : state_(XXH3_createState()) {
  LONGSTRIDE_CHECK(state_ != nullptr, "no memory for a checksum");
  XXH3_128bits_reset(state_);
}

Checksum::~Checksum() { XXH3_freeState(state_); }

void Checksum::update(const void* data, int64_t bytes) {
  if (bytes > 0) XXH3_128bits_update(state_, data, static_cast<size_t>(bytes));
}

std::string Checksum::hex() const { return as_hex(XXH3_128bits_digest(state_)); }

std::string checksum_of(const void* data, int64_t bytes) {
  return as_hex(XXH3_128bits(data, static_cast<size_t>(bytes)));
}

}  // namespace longstride
