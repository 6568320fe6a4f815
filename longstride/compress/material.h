// The two ends of a compression: what a file holds for a model, and the file again from what the model codes.
//
// A coder sees bytes of one kind only, those that the model learnt. CompressMaterial takes them out of a file and
// notes in the header what else the file has; write_original() puts both together again. What codes the bytes in
// between is the caller's, so that neither end knows of decoders, devices or names of options.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "longstride/base/atomic_file.h"
#include "longstride/base/input_file.h"
#include "longstride/compress/container.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/config.h"

namespace longstride {

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

// Fills `bytes` with those of the model that a frame was coded from. Throws if something is wrong with it.
using FrameDecoder = std::function<void(const CompressedFrame& frame, std::span<uint8_t> bytes)>;
// Writes the file that was compressed into `file` and returns its bytes. `decode` gets one frame after the other.
int64_t write_original(ByteSink& sink, const CompressedFile& file, const FrameDecoder& decode);

}  // namespace longstride
