// The file that `longstride compress` writes. ../../docs/file-formats.md describes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/checksum.h"

namespace longstride {

struct CompressedHeader {
  // Of the original.
  std::string kind;            // as data.kind
  std::string extension;       // of its name, with the dot; may be empty
  int64_t bytes = 0;           // that the model coded
  std::vector<int64_t> shape;  // pictures: height, width, channels
  std::string before, after;   // sound: what surrounds the samples in their file
  // Of the model and how it computed.
  std::string model;  // LoadedModel::digest()
  int64_t step = 0;
  std::string weights = "auto";       // or int8
  int64_t portable = 0;               // version of the integer arithmetic (IntegerModel::kVersion); 0: floats
  std::string precision;              // of products: f32, bf16, f16
  std::string device;                 // in words
  std::vector<std::string> settings;  // of the command line, section.key=value
  std::string probe;                  // WindowCoder::probe()
  // The model itself, if the file has it.
  std::string model_config;                // its [model] section; empty: the file has no model
  std::span<const uint8_t> model_weights;  // its file of weights, in the content of a CompressedFile
  // Of the coding.
  int64_t context = 0;      // bytes of a window
  int64_t streams = 0;      // windows side by side
  int64_t frame_bytes = 0;  // originals in every frame but the last, which may have fewer
};

// A part that was coded by itself.
struct CompressedFrame {
  int64_t bytes = 0;  // of the original
  std::span<const uint8_t> code;
  uint64_t checksum = 0;  // of the original's bytes
};

// An ending that may be added to a name: ".txt" or nothing, no folder, no control characters.
bool is_plain_extension(std::string_view extension);

// The first 64 bits of checksum_of().
uint64_t frame_checksum(std::span<const uint8_t> bytes);

class CompressedWriter {
 public:
  // Writes the header; `file` must outlive the writer.
  CompressedWriter(ByteSink& file, const CompressedHeader& header);
  void add(std::span<const uint8_t> original, std::span<const uint8_t> code);
  // The end; nothing may follow. Returns the bytes of the whole file.
  int64_t finish();

 private:
  ByteSink& file_;
  ChecksumSink sink_;
};

// A file that was read and found to be whole.
class CompressedFile {
 public:
  // Throws Error naming the file if it is none of these, is cut off or was altered.
  explicit CompressedFile(const std::string& path);
  // The content of such a file; `name` stands for its path in messages.
  CompressedFile(std::vector<uint8_t> content, const std::string& name);
  const CompressedHeader& header() const { return header_; }
  const std::vector<CompressedFrame>& frames() const { return frames_; }
  int64_t bytes() const { return std::ssize(content_); }
  int mode() const { return mode_; }  // permission bits

 private:
  void read(const std::string& name);

  std::vector<uint8_t> content_;  // a copy, since a file may change while it is decoded
  int mode_ = 0;
  CompressedHeader header_;
  std::vector<CompressedFrame> frames_;
};

}  // namespace longstride
