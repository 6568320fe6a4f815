// Decoded data on disk. A cache file is a header of 4096 bytes (text: what, how many bytes, the shape of a
// picture, the source) and the decoded bytes; its name is a hash of the source's paths, sizes and times and
// of the encoding. It appears by a rename, so it is whole or absent, and any cache file may be deleted at any
// time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "longstride/data/corpus.h"
#include "longstride/data/files.h"
#include "longstride/data/items.h"

namespace longstride::data {

struct CachedFile {
  std::shared_ptr<const InputFile> file;
  int64_t offset = 0;  // of the decoded bytes
  ImageShape shape;
};

// Passes the decoded bytes to `sink` and returns the shape of a picture, zero for streams. What follows a
// `mark` is ordered by the marks' keys in the end, so that an archive gives what the folder gives that was
// packed; a decoder that marks nothing keeps its order. May put temporary files into `folder`.
using Decoder =
    std::function<ImageShape(const std::string& folder, const DecodeSink& sink, const ItemMark& mark)>;

// $XDG_CACHE_HOME/longstride or ~/.cache/longstride; throws Error if neither variable is set.
std::string default_cache_folder();

// The cache file of (source, encoding), made by `decode` if it is not there. `folder` "" means
// default_cache_folder(). Processes that want the same file at the same time wait for the first one; where
// the file system has no locks they decode side by side and the last one wins. Throws Error if decoding fails
// or gives no bytes, or if the folder cannot be written; then nothing is left behind.
CachedFile decode_once(const std::string& folder, const std::string& source,
                       const std::vector<SourceFile>& files, const std::string& encoding,
                       const Decoder& decode, const DecodeProgress& progress);

}  // namespace longstride::data
