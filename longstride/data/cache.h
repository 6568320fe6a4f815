// Decoded data on disk. A cache file is a header of 4096 bytes and the decoded bytes. The header is text:
// what the bytes are, how many, the shape of a picture, and a checksum of all this and of the bytes. The
// file's name is a hash of the source's paths, sizes, times and inodes and of the encoding. It appears by a
// rename, so it is whole or absent, and any cache file may be deleted at any time.
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
  std::string remark;  // of the decoder
};

// What a decoder finds out while it decodes.
struct Decoded {
  ImageShape shape;    // of a picture; zero for streams
  std::string remark;  // one line for people, kept with the bytes; may be empty
  size_t encoding = 0;
};

// Passes the decoded bytes to `sink`. The bytes after each `mark` are sorted by the marks' keys in the end,
// so that an archive gives the same as the folder that was packed. A decoder that marks nothing keeps its
// order. May put temporary files into `folder`.
using Decoder =
    std::function<Decoded(const std::string& folder, const DecodeSink& sink, const ItemMark& mark)>;

// A request to the cache.
struct CacheRequest {
  std::string folder;             // "": default_cache_folder()
  std::string source;             // the path that the user gave
  std::vector<SourceFile> files;  // that the source holds
  // What the bytes depend on besides the source. Any of these will do if its picture's shape `fits`; the
  // first found is taken. The decoder names the one that it made in Decoded::encoding.
  std::vector<std::string> encodings;
  std::function<bool(const ImageShape& shape)> fits = [](const ImageShape&) { return true; };
};

// $XDG_CACHE_HOME/longstride or ~/.cache/longstride; throws Error if neither variable is set.
std::string default_cache_folder();

// The cache file of a request. `decode` makes it if it is absent, damaged, or writable by other users. Its
// checksum is verified once in each process. Processes that want the same file at the same time wait for the
// first one, and say so. Where the file system has no locks they decode side by side, and the last one wins.
// Throws Error if decoding fails or gives no bytes, if a source changes meanwhile, or if the folder cannot
// be written or is nearly full; then nothing is left behind.
CachedFile decode_once(const CacheRequest& request, const Decoder& decode, const DataObserver& observer);

}  // namespace longstride::data
