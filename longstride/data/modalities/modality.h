// A kind of data: all that the rest of longstride knows of it. Each kind describes itself in a file of this
// folder; table.cpp lists them. docs/data.md tells how to add one.
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

// How files begin that are of a kind.
struct Magic {
  std::string_view bytes;  // '?' is any byte
  std::string_view name;   // "a PNG picture"
};

// What a file to compress holds for a model, and what surrounds that in the file.
struct Material {
  std::vector<uint8_t> bytes;
  std::string before, after;
  ImageShape shape;  // of a picture
};

// Where the fast recipe begins if a config leaves the model open.
struct FastChoices {
  std::array<int64_t, 4> contexts;  // from the longest on
  double cpu_minutes;               // so much training of a CPU is enough for contexts[cpu_context]
  size_t cpu_context;               // with less time it is the next one
  int64_t cpu_batch_bytes;
  bool strided;               // the pattern is strided, else fixed; that of pictures follows from their shape
  bool short_contexts_first;  // long contexts are learnt after shorter ones
};

struct Modality {
  std::string_view name;  // data.kind

  // ---- what it is ----

  // Any files, whose bytes are taken as they are. What people type or pipe is of this kind too, and samples
  // may follow one another in a stream.
  bool as_is;
  // Records of H x W x C bytes, which a model sees whole; samples of them go into one file together. What is
  // no record is a stream, which a model sees in windows.
  bool records;
  // Samples a second stand in data.sample_rate, one byte each.
  bool timed;

  // ---- words for people ----

  std::string_view one, all, verb;  // "picture", "pictures", "are"
  std::string_view reads;           // what data.kind = name reads, for those who chose another kind
  std::string_view formats;         // some that would be read, for those who have others: "PNG or JPEG"
  // "40 pictures of 8 x 8 x 3": a corpus of `size` bytes.
  std::string (*describe)(const DataConfig& config, int64_t size, const ImageShape& shape);

  // ---- files to bytes ----

  std::span<const Magic> looks;        // files that are read
  std::span<const Magic> other_looks;  // files of this kind that are not
  // What the decoded bytes depend on besides the source, as in CacheRequest. Each holds a number that grows
  // whenever the same source gives other bytes.
  std::vector<std::string> (*encodings)(const DataConfig& config);
  // As data::Decoder.
  data::Decoded (*decode)(const DataConfig& config, const std::vector<data::SourceFile>& files,
                          const std::string& folder, const data::DecodeSink& sink,
                          const data::ItemMark& mark);
  // One file, that a sample goes on from; a picture must have `shape`. Throws Error.
  std::vector<uint8_t> (*prime)(const std::string& path, const DataConfig& config, const ImageShape& shape);

  // ---- bytes to files ----

  std::string_view extension;  // of a sample's file, with the dot; empty: any, and the terminal if none
  // Writes samples into one file: several only for records, and for what is as it is. A record that is not
  // finished is grey where it ends. Throws Error.
  void (*write)(const std::string& path, std::span<const std::span<const uint8_t>> samples,
                const DataConfig& config, const ImageShape& shape);

  // ---- a file in fewer bits ----

  // What the bytes of `file` hold for a model, so that `restore` gives the same file again; `shape` tells the
  // shape of the model's pictures. Null if that is the file as it is. Throws Error naming `path` for a file of
  // another kind, or with something in it that would be lost.
  Material (*material)(std::span<const uint8_t> file, const std::string& path, const DataConfig& config,
                       const std::function<ImageShape()>& shape);
  // The file's bytes from the model's, without what surrounds them. Records are given whole, others piece by
  // piece.
  std::vector<uint8_t> (*restore)(std::vector<uint8_t> bytes, const ImageShape& shape);

  FastChoices fast;
};

// All kinds; messages and help name them in this order.
std::span<const Modality* const> modalities();
// Null if there is none of that name.
const Modality* find_modality(std::string_view name);
// That of config.kind. Throws Error if it is none, or still "auto".
const Modality& modality_of(const DataConfig& config);
// "text or audio": the names of all kinds but one.
std::string kinds_beside(const Modality& left_out);

}  // namespace longstride
