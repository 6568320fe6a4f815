// Everything a model learns from, as one read-only sequence of bytes: text and other files as they are,
// pictures row by row with the channel fastest, sound as mu-law bytes. docs/data.md lists what can be read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "longstride/base/mapped_file.h"
#include "longstride/data/config.h"

namespace longstride {

struct ImageShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
  int64_t bytes() const { return height * width * channels; }
  bool operator==(const ImageShape&) const = default;
};

// Bytes of a memory-mapped file; copies share the mapping. The file must not shrink meanwhile.
class Corpus {
 public:
  // The bytes of `file` from `offset` on. `shape` is that of one picture, or zero for a stream.
  Corpus(std::shared_ptr<const MappedFile> file, int64_t offset, ImageShape shape, std::string description);

  std::span<const uint8_t> bytes() const { return bytes_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  // Bytes of a picture; 0 for text and audio, which are streams.
  int64_t record_bytes() const { return shape_.bytes(); }
  const ImageShape& shape() const { return shape_; }
  // "cifar.bin: 4000 pictures of 32 x 32 x 3", for people.
  const std::string& description() const { return description_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::span<const uint8_t> bytes_;
  ImageShape shape_;
  std::string description_;
};

// Called now and then during a long decoding with the bytes decoded so far.
using DecodeProgress = std::function<void(int64_t bytes)>;

// Opens `path` as config.kind. A plain file of bytes is mapped as it is; everything else is decoded once,
// with bounded memory, into a file below config.cache. Throws Error for anything missing, empty, damaged, cut
// off or of another kind, and if the cache cannot be written.
Corpus open_corpus(const DataConfig& config, const std::string& path, const DecodeProgress& progress = {});

// The bytes [begin, end) of a corpus; whole records if it has records. May be empty.
struct Segment {
  std::shared_ptr<const Corpus> corpus;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  std::span<const uint8_t> bytes() const {
    return corpus ? corpus->bytes().subspan(static_cast<size_t>(begin), static_cast<size_t>(size()))
                  : std::span<const uint8_t>();
  }
};

struct Splits {
  Segment train;
  Segment validation;
  Segment test;
};

// Opens config.path and, where given, config.validation_path and config.test_path, and cuts config.path in
// the order train, validation, test as config.split says. A part with a path of its own takes nothing from
// config.path; if the split is in fractions, its share goes to train. Throws Error for what open_corpus does,
// for shares that do not fit, for a share too small to hold anything, and for pictures of different shapes.
Splits open_splits(const DataConfig& config, const DecodeProgress& progress = {});

}  // namespace longstride
