// Everything a model learns from, as one read-only sequence of bytes: text and other files as they are,
// pictures row by row with the channel fastest, sound as mu-law bytes. docs/data.md lists what can be read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longstride/base/input_file.h"
#include "longstride/data/config.h"

namespace longstride {

struct ImageShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
  int64_t bytes() const { return height * width * channels; }
  bool operator==(const ImageShape&) const = default;
};

// The bytes of an open file, read when they are wanted, or bytes in memory. Copies share them.
class Corpus {
 public:
  // The bytes of `file` from `offset` on. `shape` is that of one picture, or zero for a stream.
  Corpus(std::shared_ptr<const InputFile> file, int64_t offset, ImageShape shape, std::string description);
  // Bytes in memory, as a model sees them. Throws Error if there are none, or if they are not whole pictures
  // of `shape`.
  explicit Corpus(std::vector<uint8_t> bytes, ImageShape shape = {}, std::string description = "memory");

  // Fills `bytes` from byte `begin` on; begin + bytes.size() is at most size(). Throws InputError if the
  // file has become shorter or cannot be read.
  void read(int64_t begin, std::span<uint8_t> bytes) const;
  int64_t size() const { return file_ ? file_->bytes() - offset_ : std::ssize(*memory_); }
  // Bytes of a picture; 0 for text and audio, which are streams.
  int64_t record_bytes() const { return shape_.bytes(); }
  const ImageShape& shape() const { return shape_; }
  // "cifar.bin: 4000 pictures of 32 x 32 x 3", for people.
  const std::string& description() const { return description_; }

 private:
  std::shared_ptr<const InputFile> file_;  // null: the bytes are memory_
  std::shared_ptr<const std::vector<uint8_t>> memory_;
  int64_t offset_ = 0;  // in the file
  ImageShape shape_;
  std::string description_;
};

// Receives what people may want to know while data are opened. Either function may be empty.
struct DataObserver {
  // Takes lines about slow work, problems with a cache file, and data that look like another kind.
  std::function<void(const std::string& line)> note;
  // Called now and then during a decoding with the bytes decoded so far, and with -1 at its end.
  std::function<void(int64_t bytes)> progress;
};
// The observer of all later calls that give none. Do not call this while another thread opens data.
void set_data_observer(DataObserver observer);
const DataObserver& data_observer();

// Opens `path` as config.kind. A plain file of bytes is read as it is; everything else is decoded once, with
// bounded memory, into a file below config.cache. Throws Error for anything missing, empty, damaged, cut
// off, of another kind or changed meanwhile, and if the cache cannot be written.
Corpus open_corpus(const DataConfig& config, const std::string& path,
                   const DataObserver& observer = data_observer());

// The data.kind that most of `path` looks like by its first bytes; "text" if it looks like nothing in
// particular. Throws Error if it cannot be read.
std::string kind_of_data(const std::string& path);

// The bytes [begin, end) of a corpus; whole records if it has records. May be empty.
struct Segment {
  std::shared_ptr<const Corpus> corpus;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  // Fills `bytes` from byte `from` of the segment on, as Corpus::read.
  void read(int64_t from, std::span<uint8_t> bytes) const;
  // Bytes [from, from + count) of the segment.
  std::vector<uint8_t> read(int64_t from, int64_t count) const;
};

struct Splits {
  Segment train;
  Segment validation;
  Segment test;
};

// Opens config.path and, where given, config.validation_path and config.test_path, and cuts config.path in
// the order train, validation, test by config.split. A part with a path of its own takes nothing from
// config.path; if the split is in fractions, its share goes to train. Throws Error as open_corpus does, for
// shares that do not fit, for a share too small to hold anything, and for pictures of different shapes.
Splits open_splits(const DataConfig& config, const DataObserver& observer = data_observer());

// Cuts a corpus in the order train, validation, test, by data.split. Corpora in memory come to training and
// evaluation in this way. Throws Error for shares that do not fit and for a share too small to hold
// anything.
Splits split_corpus(std::shared_ptr<const Corpus> corpus, const std::vector<double>& split);

}  // namespace longstride
