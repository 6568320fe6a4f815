// What is written, as a string.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/base/atomic_file.h"

namespace longstride {

class TextSink : public ByteSink {
 public:
  using ByteSink::write;
  void write(const void* data, int64_t bytes) override {
    text.append(static_cast<const char*>(data), static_cast<size_t>(bytes));
  }
  std::string text;
};

}  // namespace longstride
