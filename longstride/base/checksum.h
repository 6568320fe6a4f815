// XXH3 with 128 bits: the checksum of the files that longstride keeps. It finds damage, not forgery.
// `xxh128sum FILE` prints the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "longstride/base/atomic_file.h"

struct XXH3_state_s;

namespace longstride {

class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;

  void update(const void* data, int64_t bytes);
  // 32 lower-case hexadecimal digits, most significant first.
  std::string hex() const;

 private:
  XXH3_state_s* state_;
};

// The checksum of one piece of memory.
std::string checksum_of(const void* data, int64_t bytes);

// Passes bytes on, and takes their number and checksum before they reach the disk. So a later check compares
// with what was meant to be written, not with what the disk made of it.
class ChecksumSink : public ByteSink {
 public:
  explicit ChecksumSink(ByteSink& next) : next_(next) {}
  using ByteSink::write;
  void write(const void* data, int64_t bytes) override {
    checksum_.update(data, bytes);
    bytes_ += bytes;
    next_.write(data, bytes);
  }
  int64_t bytes() const { return bytes_; }
  std::string hex() const { return checksum_.hex(); }

 private:
  ByteSink& next_;
  Checksum checksum_;
  int64_t bytes_ = 0;
};

}  // namespace longstride
