// A loaded model as a coder: how many windows go side by side, what a file says of the model, and its frames.
// What compresses files and what compresses memory both go through this.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longstride/compress/container.h"
#include "longstride/compress/portable/integer_decoder.h"
#include "longstride/compress/window_coder.h"
#include "longstride/run/run_directory.h"

namespace longstride {

// Names that messages of a refusal use.
struct CodedNames {
  std::string file;  // what was compressed
  std::string run;   // the model's run
};

struct CodingOptions {
  bool portable = false;                                     // in integers, which any machine decodes
  int64_t most_bytes = std::numeric_limits<int64_t>::max();  // that the decoder may take
};

class Codec {
 public:
  // To compress `size` bytes: windows side by side in few rounds, as many as memory has room for. Throws Error
  // if a portable file cannot be made with this model, or where it is loaded.
  Codec(const LoadedModel& loaded, int64_t size, const CodingOptions& options = {});
  // To decompress what has this header. Throws Error if the model is another one.
  Codec(const LoadedModel& loaded, const CompressedHeader& header, const CodedNames& names);

  // Before make_coder(): what the decoder will take of the device's memory.
  int64_t bytes() const;
  // Allocates the decoder. For decompression throws Error if the device computes other bits than the one that
  // compressed.
  void make_coder();

  // Fills what the header says of the model and of the coding. `weights` is auto or int8. What it says of a
  // portable file is the same on every machine.
  void describe(CompressedHeader& header, const std::string& weights);

  struct Sums {
    int64_t code = 0;  // bytes
    double bits = 0;   // -log2 p
  };
  // Codes header.bytes bytes, which `read(begin, count)` gives, frame by frame.
  using Reader = std::function<std::vector<uint8_t>(int64_t begin, int64_t count)>;
  Sums encode(const CompressedHeader& header, const Reader& read, CompressedWriter& writer,
              const CodingProgress& progress = {});
  // Fills `bytes` with those of a frame. Throws Error if they are not what was compressed.
  void decode(const CompressedFrame& frame, std::span<uint8_t> bytes, const CodingProgress& progress = {});

 private:
  [[noreturn]] void refuse_device() const;
  [[noreturn]] void refuse_frame() const;

  const LoadedModel& loaded_;
  DecoderOptions options_;
  CompressedHeader header_;  // of what is decompressed
  CodedNames names_;
  std::string device_;
  bool portable_ = false, decompresses_ = false;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<IntegerModel> integer_model_;  // of a portable file, in place of the decoder
  std::unique_ptr<IntegerDecoder> integer_decoder_;
  std::unique_ptr<WindowCoder> coder_;
};

// Puts the run's model into the header of a file that is to be read without the run: the [model] section of its
// configuration, and `weights`, whose content must outlive the header. Nothing of the data's names is told.
void embed_model(CompressedHeader& header, const LoadedModel& loaded, const SafetensorsFile& weights);

// What decoding with an embedded model may take of memory beside the model, whose sizes anybody may have written.
int64_t embedded_decoder_room(const CompressedHeader& header);

// The model that the file holds; it has the digest that the header names. Throws Error that says what is wrong
// with it.
LoadedModel load_embedded_model(const CompressedHeader& header, const std::string& file,
                                const ComputeConfig& compute);

// The digest of the model that the file holds. Throws Error if its parts do not fit each other.
std::string embedded_digest(const CompressedHeader& header, const std::string& file);

// The model that a file was compressed with, of the run. Throws Error that says so where the run has none of
// it.
LoadedModel load_model_of(const CompressedHeader& header, const CodedNames& names,
                          const ComputeConfig& compute);

}  // namespace longstride
