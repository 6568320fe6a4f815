// What a file to compress holds for a model, and the file again from that.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "longstride/base/mapped_file.h"
#include "longstride/compress/container.h"
#include "longstride/run/config.h"

namespace longstride::cli {

// A file's bytes as the run's model sees them: text as it is, a picture's pixels, samples in the order of
// their amplitudes.
class CompressMaterial {
 public:
  // Throws Error if the file is not of the run's kind.
  CompressMaterial(const RunConfig& config, const std::string& path);

  std::span<const uint8_t> bytes() const { return own_.empty() ? file_.span().subspan(begin_, size_) : own_; }
  int64_t file_bytes() const { return file_.bytes(); }
  // Fills what the header says of the original.
  void describe(CompressedHeader& header) const;

 private:
  void read_picture(const RunConfig& config);
  void read_sound(const RunConfig& config);

  std::string kind_;
  MappedFile file_;
  size_t begin_ = 0, size_ = 0;  // of the coded bytes in the file; text and sound
  std::vector<uint8_t> own_;     // pixels; samples, if there are any
  std::vector<int64_t> shape_;
};

// Writes the file that `header` describes. `decode(frame)` fills one frame of model bytes after the other and
// throws if something is wrong with them; nothing is written then.
using FrameDecoder = std::function<void(const CompressedFrame& frame, std::span<uint8_t> bytes)>;
void write_original(const std::string& path, const CompressedFile& file, const FrameDecoder& decode);

}  // namespace longstride::cli
