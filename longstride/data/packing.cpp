#include "longstride/data/packing.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/data/files.h"
#include "longstride/data/looks.h"
#include "longstride/data/unpack.h"

namespace longstride::data {

namespace {

constexpr size_t kTarBlock = 512;
constexpr const char* kAdvice = "it is damaged or cut off; fetch or make it again";

using std::string_view_literals::operator""sv;

struct Magic {
  std::string_view bytes;
  Compression compression;
};
constexpr std::array<Magic, 6> kMagics{{{"\xFD"
                                         "7zXZ\0"sv,
                                         Compression::xz},
                                        {"\x1F\x8B\x08"sv, Compression::gzip},
                                        {"\x28\xB5\x2F\xFD"sv, Compression::zstd},
                                        {"BZh"sv, Compression::bzip2},
                                        {"\x04\x22\x4D\x18"sv, Compression::lz4},
                                        {"\x02\x21\x4C\x18"sv, Compression::lz4}}};

struct Suffix {
  std::string_view extension;
  Compression compression;
};
constexpr std::array<Suffix, 12> kSuffixes{{{"xz", Compression::xz},
                                            {"txz", Compression::xz},
                                            {"gz", Compression::gzip},
                                            {"tgz", Compression::gzip},
                                            {"zst", Compression::zstd},
                                            {"tzst", Compression::zstd},
                                            {"bz2", Compression::bzip2},
                                            {"tbz2", Compression::bzip2},
                                            {"tbz", Compression::bzip2},
                                            {"tb2", Compression::bzip2},
                                            {"lz4", Compression::lz4},
                                            {"tlz4", Compression::lz4}}};

std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint32_t little_endian(std::string_view bytes, size_t at, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value |= uint32_t{static_cast<uint8_t>(bytes[at + static_cast<size_t>(i)])} << (8 * i);
  return value;
}

// Has either the mark of POSIX and GNU or, like the tar of Unix version 7, only a right checksum. That is
// the sum of the header's bytes, where the checksum itself counts as blanks.
bool begins_like_tar(std::span<const uint8_t> head) {
  if (head.size() < kTarBlock) return false;
  const std::string_view text = as_text(head.first(kTarBlock));
  if (text.substr(257, 5) == "ustar") return true;
  constexpr size_t kSumAt = 148, kSumBytes = 8;
  if (head[0] == 0) return false;
  std::string_view digits = text.substr(kSumAt, kSumBytes);
  digits.remove_prefix(std::min(digits.find_first_not_of(' '), digits.size()));
  const size_t count = std::min(digits.find_first_not_of("01234567"), digits.size());
  if (count == 0 || digits.substr(count).find_first_not_of("\0 "sv) != std::string_view::npos) return false;
  int64_t claimed = 0, sum = 0, signed_sum = 0;
  for (const char digit : digits.substr(0, count)) claimed = claimed * 8 + (digit - '0');
  for (size_t i = 0; i < kTarBlock; ++i) {
    const uint8_t byte = i >= kSumAt && i < kSumAt + kSumBytes ? uint8_t{' '} : head[i];
    sum += byte;
    signed_sum += static_cast<int8_t>(byte);
  }
  return claimed == sum || claimed == signed_sum;
}

bool all_zero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// Frames of zstd and lz4 that hold nothing to decode: a magic number, a size, and as many bytes.
bool begins_like_skippable(std::string_view head) {
  return head.size() >= 8 && (little_endian(head, 0, 4) & 0xFFFFFFF0u) == 0x184D2A50u;
}

Compression compression_of(std::string_view head) {
  for (const Magic& magic : kMagics)
    if (head.starts_with(magic.bytes)) return magic.compression;
  return Compression::none;
}

Compression claimed_compression(const std::string& extension) {
  for (const Suffix& suffix : kSuffixes)
    if (extension == suffix.extension) return suffix.compression;
  return Compression::none;
}

// What the last record of a zip archive says about places in the file.
struct ZipEnd {
  int64_t first_entry = 0;  // the bytes in front of the archive
  bool empty = false;
  bool in_parts = false;  // this is the last file of several
};

// The zip archive that ends where the file ends, if there is one. Its directory is looked for where the
// record says, or further on by the length of what was put before the archive.
std::optional<ZipEnd> zip_end(int file, const std::string& path, bool with_comment) {
  constexpr int64_t kRecord = 22, kLongestComment = 65535;
  constexpr size_t kEntry = 46, kOffsetOfEntry = 42;
  const off_t size = ::lseek(file, 0, SEEK_END);
  if (size < kRecord) return std::nullopt;
  const int64_t begin = std::max<int64_t>(0, size - kRecord - (with_comment ? kLongestComment : 0));
  const std::vector<uint8_t> bytes = bytes_at(file, begin, static_cast<size_t>(size - begin), path);
  const std::string_view tail = as_text(bytes);
  for (size_t at = tail.rfind("PK\5\6"); at != std::string_view::npos;
       at = at == 0 ? std::string_view::npos : tail.rfind("PK\5\6", at - 1)) {
    if (at + kRecord > tail.size() || at + kRecord + little_endian(tail, at + 20, 2) != tail.size()) continue;
    ZipEnd found;
    found.in_parts = little_endian(tail, at + 4, 2) > 0 && little_endian(tail, at + 4, 2) < 0xFFFF;
    found.empty = little_endian(tail, at + 10, 2) == 0;
    const int64_t directory = little_endian(tail, at + 12, 4), offset = little_endian(tail, at + 16, 4);
    const int64_t end = begin + static_cast<int64_t>(at), moved = end - directory - offset;
    if (found.in_parts || (found.empty && directory == 0)) return found;
    if (moved < 0) continue;
    const std::vector<uint8_t> entry = bytes_at(file, end - directory, kEntry, path);
    if (entry.size() < kEntry || !as_text(entry).starts_with("PK\1\2")) continue;
    found.first_entry = moved + little_endian(as_text(entry), kOffsetOfEntry, 4);
    return found;
  }
  return std::nullopt;
}

bool may_carry_zip(const std::string& extension) {
  return extension == "zip" || extension == "exe" || extension == "sfx" || extension == "run";
}

}  // namespace

bool may_begin_stream(std::span<const uint8_t> head, Compression compression) {
  return std::any_of(kMagics.begin(), kMagics.end(), [&](const Magic& magic) {
    return magic.compression == compression && magic.bytes.starts_with(as_text(head));
  });
}

Packing packing_of(const std::string& path) {
  const FileDescriptor file = open_for_reading(path);
  std::vector<uint8_t> head = bytes_at(file.get(), 0, kTarBlock, path);
  LONGSTRIDE_CHECK(!head.empty(), "{} is empty", path);
  const std::string extension = lower_extension(path);
  const Compression claimed = claimed_compression(extension);
  Packing packing;
  packing.compression = compression_of(as_text(head));
  if (begins_like_skippable(as_text(head))) {
    std::vector<uint8_t> behind = head;
    while (begins_like_skippable(as_text(behind))) {
      packing.begin += 8 + int64_t{little_endian(as_text(behind), 4, 4)};
      behind = bytes_at(file.get(), packing.begin, 8, path);
    }
    packing.compression = compression_of(as_text(behind));
    const bool skips = packing.compression == Compression::zstd || packing.compression == Compression::lz4;
    if (!skips) packing = {};
    // Such a frame may be all that the file holds.
    if (!skips && behind.empty() && (claimed == Compression::zstd || claimed == Compression::lz4))
      packing.compression = claimed;
  }
  // "BZh" alone could begin a text; the block's magic number follows the digit.
  if (packing.compression == Compression::bzip2 && claimed != Compression::bzip2 &&
      (head.size() < 10 || as_text(head).substr(4, 6) != "1AY&SY"))
    packing.compression = Compression::none;
  LONGSTRIDE_CHECK(
      claimed == Compression::none || claimed == packing.compression,
      "{} is named .{} but does not begin like such a file: {}, or rename it to read it as it is", path,
      extension, kAdvice);

  // An empty archive is zeros.
  if (packing.compression != Compression::none) {
    ArchiveReader reader(path, packing);
    std::vector<uint8_t> inside(kTarBlock);
    inside.resize(reader.next() ? reader.read(inside) : 0);
    const bool of_nothing =
        inside.size() == kTarBlock && all_zero(inside) &&
        (extension.starts_with('t') || lower_extension(without_compression_suffix(path)) == "tar");
    if (begins_like_tar(inside) || of_nothing) packing.container = Container::tar;
  } else if (as_text(head).starts_with("PK\3\4") || as_text(head).starts_with("PK\5\6") ||
             as_text(head).starts_with("PK00PK\3\4")) {
    packing.container = Container::zip;
  } else if (begins_like_tar(head) || (extension == "tar" && head.size() == kTarBlock && all_zero(head))) {
    packing.container = Container::tar;
  } else if (extension == "zip" || !begins_like_media(head)) {
    const std::optional<ZipEnd> zip = zip_end(file.get(), path, may_carry_zip(extension));
    LONGSTRIDE_CHECK(!zip || !zip->in_parts || extension != "zip",
                     "{} is the last part of a zip archive in several files; join them with zip -s 0 --out",
                     path);
    if (zip && !zip->in_parts && zip->first_entry > 0) {
      packing.container = Container::zip;
      packing.prefix = zip->first_entry;
    }
  }
  if (packing.container == Container::zip && packing.prefix == 0) {
    const std::optional<ZipEnd> zip = zip_end(file.get(), path, true);
    LONGSTRIDE_CHECK(!zip || !zip->empty, "{} is a zip archive of nothing", path);
  }
  LONGSTRIDE_CHECK(
      (extension != "zip" || packing.container == Container::zip) &&
          (extension != "tar" || packing.container == Container::tar),
      "{} is named .{} but does not begin like such a file: {}, or rename it to read it as it is", path,
      extension, kAdvice);
  return packing;
}

bool is_named_as_packed(const std::string& path) {
  const std::string extension = lower_extension(path);
  return claimed_compression(extension) != Compression::none || extension == "tar" || extension == "zip" ||
         extension == "npz";
}

std::string without_compression_suffix(const std::string& path) {
  const std::string extension = lower_extension(path);
  if (claimed_compression(extension) == Compression::none) return path;
  return path.substr(0, path.size() - extension.size() - 1);
}

}  // namespace longstride::data
