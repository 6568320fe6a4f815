// A kind of data, and all that the rest of longstride knows of it. Each kind describes itself in a file of
// this folder; table.cpp lists them. docs/data.md says how to add one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/data/cache.h"
#include "longstride/data/config.h"
#include "longstride/data/corpus.h"
#include "longstride/data/items.h"

namespace longstride {

// How files of a kind begin.
struct Magic {
  std::string_view bytes;  // '?' is any byte
  std::string_view name;   // "a PNG picture"
};

// The part of a file that a model compresses, and what surrounds it in the file.
struct Material {
  std::vector<uint8_t> bytes;
  std::string before, after;
  ImageShape shape;  // of a picture
};

// What the fast recipe starts with if a config leaves the model open.
struct FastChoices {
  std::array<int64_t, 4> contexts;  // the longest first
  double cpu_minutes;               // a CPU that trains this long can take contexts[cpu_context]
  size_t cpu_context;               // with less time it takes the next one
  int64_t cpu_batch_bytes;
  bool strided;               // the pattern is strided, else fixed; that of pictures follows from their shape
  bool short_contexts_first;  // long contexts are learnt after shorter ones
};

struct Modality {
  std::string_view name;  // data.kind

  // ---- what it is ----

  // Any files, whose bytes are taken as they are. Typed and piped bytes are of this kind too, and samples
  // may follow one another in a stream.
  bool as_is;
  // Records of H x W x C bytes, which a model sees whole; samples of them go into one file together.
  // Otherwise the data are a stream, which a model sees in windows.
  bool records;
  // data.sample_rate is the number of samples in a second; each is a byte.
  bool timed;

  // ---- words for people ----

  std::string_view one, all, verb;  // "picture", "pictures", "are"
  std::string_view reads;           // what data.kind = name reads, for people who chose another kind
  std::string_view formats;         // some that would be read, for people who have others: "PNG or JPEG"
  // "40 pictures of 8 x 8 x 3": a corpus of `size` bytes.
  std::string (*describe)(const DataConfig& config, int64_t size, const ImageShape& shape);

  // ---- files to bytes ----

  std::span<const Magic> looks;        // files that are read
  std::span<const Magic> other_looks;  // files of this kind that are not read
  // What the decoded bytes depend on besides the source, as in CacheRequest. Each holds a number that grows
  // whenever the same source gives other bytes.
  std::vector<std::string> (*encodings)(const DataConfig& config);
  // As data::Decoder.
  data::Decoded (*decode)(const DataConfig& config, const std::vector<data::SourceFile>& files,
                          const std::string& folder, const data::DecodeSink& sink,
                          const data::ItemMark& mark);
  // Reads one file that a sample goes on from; a picture must have `shape`. Throws Error.
  std::vector<uint8_t> (*prime)(const std::string& path, const DataConfig& config, const ImageShape& shape);

  // ---- bytes to files ----

  std::string_view extension;  // of a sample's file, with the dot; empty: any, and the terminal if none
  // Writes samples into one file. Several are allowed only for records and for bytes that are taken as they
  // are. A record that is not finished is grey from where it ends. Throws Error.
  void (*write)(const std::string& path, std::span<const std::span<const uint8_t>> samples,
                const DataConfig& config, const ImageShape& shape);

  // ---- a file in fewer bits ----

  // The bytes of `file` that a model compresses, from which `restore` makes the same file again; `shape` is
  // the shape of the model's pictures. Null if it is the file as it is. Throws Error naming `path` for a
  // file of another kind, or with something in it that would be lost.
  Material (*material)(std::span<const uint8_t> file, const std::string& path, const DataConfig& config,
                       const std::function<ImageShape()>& shape);
  // The file's bytes from the model's, without what surrounds them. Records are given whole, others in
  // pieces.
  std::vector<uint8_t> (*restore)(std::vector<uint8_t> bytes, const ImageShape& shape);

  FastChoices fast;
};

// All kinds; messages and help name them in this order.
std::span<const Modality* const> modalities();
// Null if no kind has that name.
const Modality* find_modality(std::string_view name);
// The modality of config.kind. Throws Error if it is unknown, or still "auto".
const Modality& modality_of(const DataConfig& config);
// "text or audio": the names of all kinds but one.
std::string kinds_beside(const Modality& left_out);

}  // namespace longstride
