// What a file to compress holds for a model, and the file again from that.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "longstride/base/input_file.h"
#include "longstride/base/output_file.h"
#include "longstride/compress/container.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/config.h"

namespace longstride::cli {

// A file's bytes as the run's model sees them: text as it is, a picture's pixels, samples in the order of
// their amplitudes.
class CompressMaterial {
 public:
  // Throws Error if the file is not of the run's kind, or holds what could not be given back.
  CompressMaterial(const RunConfig& config, const std::string& path);

  int64_t size() const { return size_; }
  // A copy of some of the bytes, so that coding and checksum see the same even if the file changes. Throws
  // InputError if it was shortened.
  std::vector<uint8_t> read(int64_t begin, int64_t count) const;
  // Throws InputError if the file is no longer what it was. To be called when all is read.
  void check_unchanged() const { file_.check_unchanged(); }
  int64_t file_bytes() const { return file_.bytes(); }
  int file_mode() const;  // permission bits
  // Fills what the header says of the original.
  void describe(CompressedHeader& header) const;

 private:
  const Modality& modality_;
  InputFile file_;
  int64_t size_ = 0;   // of what is coded
  Material material_;  // empty if the file is coded as it is
};

// Writes the file that `header` describes and returns its bytes. `decode(frame)` fills one frame of model
// bytes after the other and throws if something is wrong with them; no regular file is written then.
using FrameDecoder = std::function<void(const CompressedFrame& frame, std::span<uint8_t> bytes)>;
int64_t write_original(const std::string& path, const CompressedFile& file, const OutputOptions& options,
                       const FrameDecoder& decode);

}  // namespace longstride::cli
