// The content of a path, one file after another: the path itself, what is compressed in it, the members of
// an archive, or all of these below a folder. Everything streams; memory stays bounded whatever the sizes.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/data/files.h"

namespace longstride::data {

// Where decoded bytes go.
using DecodeSink = std::function<void(std::span<const uint8_t>)>;
// Receives the key of an item before its bytes are passed on.
using ItemMark = std::function<void(const std::string& key)>;

// One file to decode, read once from its beginning.
class Item {
 public:
  // Fills the span as far as there are bytes; fewer only at the end.
  using Reader = std::function<size_t(std::span<uint8_t>)>;

  // `label` names it in messages ("music.tar.xz: a/b.wav"). Keys sort as a folder does: by path, then
  // member. `name` is its own name, without the suffix of a compression. `plain_path` is where its bytes are
  // a file as they are, or empty.
  Item(std::string label, std::string key, const std::string& name, std::string plain_path, Reader reader)
      : label_(std::move(label)),
        key_(std::move(key)),
        extension_(lower_extension(name)),
        plain_path_(std::move(plain_path)),
        reader_(std::move(reader)) {}

  const std::string& label() const { return label_; }
  const std::string& key() const { return key_; }
  const std::string& extension() const { return extension_; }
  const std::string& plain_path() const { return plain_path_; }

  // Like Reader. Throws Error if the data are damaged or cut off.
  size_t read(std::span<uint8_t> bytes);
  // Up to `count` of the next bytes; the next read returns them again.
  std::span<const uint8_t> peek(size_t count);
  // Everything left; throws Error if that is more than `limit` bytes.
  std::vector<uint8_t> read_rest(int64_t limit);

 private:
  std::string label_, key_, extension_, plain_path_;
  Reader reader_;
  std::vector<uint8_t> ahead_;
};

// True if the file is neither compressed nor an archive, judged by its first bytes. Throws Error if its name
// claims a compression that its bytes do not show.
bool is_plain_file(const std::string& path);

// Calls `visit` for every regular file in `files` that is not hidden; members of archives in the archive's
// order. An archive gives what would be there after unpacking it: of members with the same name the last,
// and for links the bytes that they lead to. Throws Error for archives and compressed files that are
// damaged, cut off or encrypted. Reads xz, gz, zst, bz2, lz4; tar, also compressed; zip. An empty file,
// member or stream beside others adds nothing, but is an Error if its extension is one of `never_empty`.
// Returns a remark about what was not read; mostly empty.
std::string visit_items(const std::vector<SourceFile>& files, const std::function<void(Item&)>& visit,
                        std::span<const std::string_view> never_empty = {});

// Joins remarks into one and leaves out empty ones.
std::string join_remarks(std::initializer_list<std::string> remarks);

// Calls `visit` with the files, and with some of the first members of each archive, of which only the
// beginning should be read. Empty ones are left out.
void peek_items(const std::vector<SourceFile>& files, const std::function<void(Item&)>& visit);

}  // namespace longstride::data
