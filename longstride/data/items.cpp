#include "longstride/data/items.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>
#include <zlib.h>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"

namespace longstride::data {

namespace {

constexpr size_t kBlock = 128 * 1024;
constexpr size_t kTarBlock = 512;
constexpr const char* kAdvice = "it is damaged or cut off; fetch or make it again";

enum class Compression { none, gzip, bzip2, xz, zstd };
enum class Container { file, tar, zip };

struct Packing {
  Compression compression = Compression::none;
  Container container = Container::file;
};

struct Suffix {
  std::string_view extension, magic;
  Compression compression;
};
using std::string_view_literals::operator""sv;
constexpr std::array<Suffix, 8> kSuffixes{{{"xz",
                                            "\xFD"
                                            "7zXZ\0"sv,
                                            Compression::xz},
                                           {"txz",
                                            "\xFD"
                                            "7zXZ\0"sv,
                                            Compression::xz},
                                           {"gz", "\x1F\x8B\x08", Compression::gzip},
                                           {"tgz", "\x1F\x8B\x08", Compression::gzip},
                                           {"zst", "\x28\xB5\x2F\xFD", Compression::zstd},
                                           {"tzst", "\x28\xB5\x2F\xFD", Compression::zstd},
                                           {"bz2", "BZh", Compression::bzip2},
                                           {"tbz2", "BZh", Compression::bzip2}}};

std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool begins_like_tar(std::span<const uint8_t> head) {
  return head.size() >= kTarBlock && as_text(head).substr(257, 5) == "ustar";
}

// gzip goes through zlib, since libarchive does not verify the checksum of a gzip stream.
struct GzipInput {
  gzFile file = nullptr;
  std::vector<uint8_t> block = std::vector<uint8_t>(kBlock);
  ~GzipInput() {
    if (file != nullptr) gzclose(file);
  }
};

la_ssize_t read_gzip(archive* reader, void* data, const void** block) {
  auto* input = static_cast<GzipInput*>(data);
  const int count = gzread(input->file, input->block.data(), static_cast<unsigned>(input->block.size()));
  int code = Z_OK;
  const char* reason = gzerror(input->file, &code);
  if (count < 0 || code == Z_BUF_ERROR) {
    archive_set_error(reader, EINVAL, "%s", code == Z_BUF_ERROR ? "the gzip stream ends early" : reason);
    return ARCHIVE_FATAL;
  }
  *block = input->block.data();
  return count;
}

// libarchive over one file, opened for exactly the packing that was found.
class ArchiveReader {
 public:
  ArchiveReader(const std::string& path, Packing packing) : path_(path), archive_(archive_read_new()) {
    LONGSTRIDE_CHECK(archive_ != nullptr, "cannot read {}: out of memory", path);
    switch (packing.compression) {
      case Compression::xz:
        archive_read_support_filter_xz(get());
        break;
      case Compression::zstd:
        archive_read_support_filter_zstd(get());
        break;
      case Compression::bzip2:
        archive_read_support_filter_bzip2(get());
        break;
      case Compression::gzip:
      case Compression::none:
        break;
    }
    switch (packing.container) {
      case Container::file:
        archive_read_support_format_raw(get());
        archive_read_support_format_empty(get());
        break;
      case Container::tar:
        archive_read_support_format_tar(get());
        break;
      // The seeking reader insists on the directory at the end, so a cut-off archive cannot pass for a
      // shorter one.
      case Container::zip:
        archive_read_support_format_zip_seekable(get());
        break;
    }
    if (packing.compression == Compression::gzip) {
      gzip_.file = gzopen(path.c_str(), "rb");
      LONGSTRIDE_CHECK(gzip_.file != nullptr, "cannot read {}: {}", path, last_system_error());
      check(archive_read_open(get(), &gzip_, nullptr, read_gzip, nullptr));
    } else {
      check(archive_read_open_filename(get(), path.c_str(), kBlock));
    }
  }

  archive* get() const { return archive_.get(); }

  // The next entry, or null at the end.
  archive_entry* next() {
    archive_entry* entry = nullptr;
    const int status = archive_read_next_header(get(), &entry);
    // A stream that breaks before its first byte looks like an empty one, but for the error it leaves.
    if (status == ARCHIVE_EOF && archive_error_string(get()) == nullptr) return nullptr;
    if (status == ARCHIVE_EOF) check(ARCHIVE_FATAL);
    check(status);
    return entry;
  }

  size_t read(std::span<uint8_t> bytes) {
    size_t done = 0;
    while (done < bytes.size()) {
      const la_ssize_t count = archive_read_data(get(), bytes.data() + done, bytes.size() - done);
      if (count == ARCHIVE_RETRY) continue;
      check(count < 0 ? ARCHIVE_FATAL : ARCHIVE_OK);
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }

 private:
  // Warnings (a name that the locale cannot show) do no harm to the bytes.
  void check(int status) const {
    if (status == ARCHIVE_OK || status == ARCHIVE_WARN) return;
    const char* reason = archive_error_string(get());
    fail("cannot unpack {}: {} ({})", path_, reason == nullptr ? "unknown error" : reason, kAdvice);
  }

  struct Free {
    void operator()(archive* a) const { archive_read_free(a); }
  };
  std::string path_;
  GzipInput gzip_;
  std::unique_ptr<archive, Free> archive_;  // after gzip_, which it reads from until it is freed
};

std::vector<uint8_t> first_bytes(const std::string& path) {
  std::vector<uint8_t> head(kTarBlock);
  head.resize(read_some(open_for_reading(path).get(), head, path));
  return head;
}

Packing packing_of(const std::string& path) {
  const std::vector<uint8_t> head = first_bytes(path);
  LONGSTRIDE_CHECK(!head.empty(), "{} is empty", path);
  const std::string extension = lower_extension(path);
  Packing packing;
  for (const Suffix& suffix : kSuffixes) {
    if (as_text(head).starts_with(suffix.magic)) packing.compression = suffix.compression;
    LONGSTRIDE_CHECK(
        extension != suffix.extension || as_text(head).starts_with(suffix.magic),
        "{} is named .{} but does not begin like such a file: {}, or rename it to read it as it is", path,
        extension, kAdvice);
  }
  // "BZh" alone could begin a text; the block's magic number follows the digit.
  if (packing.compression == Compression::bzip2 && extension != "bz2" && extension != "tbz2" &&
      (head.size() < 10 || as_text(head).substr(4, 6) != "1AY&SY"))
    packing.compression = Compression::none;
  if (packing.compression != Compression::none) {
    ArchiveReader reader(path, packing);
    std::vector<uint8_t> inside(kTarBlock);
    if (reader.next() != nullptr) inside.resize(reader.read(inside));
    if (begins_like_tar(inside)) packing.container = Container::tar;
  } else if (as_text(head).starts_with("PK\3\4") || as_text(head).starts_with("PK\5\6")) {
    packing.container = Container::zip;
  } else if (begins_like_tar(head)) {
    packing.container = Container::tar;
  }
  LONGSTRIDE_CHECK(
      extension != "zip" || packing.container == Container::zip,
      "{} is named .zip but does not begin like such a file: {}, or rename it to read it as it is", path,
      kAdvice);
  LONGSTRIDE_CHECK(
      extension != "tar" || packing.container == Container::tar,
      "{} is named .tar but does not begin like such a file: {}, or rename it to read it as it is", path,
      kAdvice);
  return packing;
}

// A tar ends in zero blocks. Without them a cut between two members would go unnoticed.
void check_tar_end(const std::string& path) {
  const FileDescriptor file = open_for_reading(path);
  std::vector<uint8_t> tail(kTarBlock, 1);
  const bool read = ::lseek(file.get(), -static_cast<off_t>(kTarBlock), SEEK_END) >= 0 &&
                    read_some(file.get(), tail, path) == kTarBlock;
  LONGSTRIDE_CHECK(read && std::all_of(tail.begin(), tail.end(), [](uint8_t byte) { return byte == 0; }),
                   "cannot unpack {}: the end mark of the tar archive is missing ({})", path, kAdvice);
}

std::string without_compression_suffix(const std::string& path) {
  const std::string extension = lower_extension(path);
  for (const Suffix& suffix : kSuffixes)
    if (extension == suffix.extension) return path.substr(0, path.size() - extension.size() - 1);
  return path;
}

void visit_members(const std::string& path, Packing packing, const std::function<void(Item&)>& visit) {
  if (packing.container == Container::tar && packing.compression == Compression::none) check_tar_end(path);
  ArchiveReader reader(path, packing);
  for (int64_t number = 1; archive_entry* entry = reader.next(); ++number) {
    const char* name = archive_entry_pathname(entry);
    if (name == nullptr) name = archive_entry_pathname_utf8(entry);
    const std::string member = name != nullptr ? name : fmt::format("member {}", number);
    LONGSTRIDE_CHECK(archive_entry_hardlink(entry) == nullptr,
                     "{}: {} is a hard link to another member; pack it again with tar --hard-dereference",
                     path, printable_line(member));
    if (archive_entry_filetype(entry) != AE_IFREG || is_hidden(member)) continue;
    Item item(path + ": " + printable_line(member), path + '\0' + member, member, "",
              [&](std::span<uint8_t> bytes) { return reader.read(bytes); });
    visit(item);
  }
}

void visit_file(const std::string& path, const std::function<void(Item&)>& visit) {
  const Packing packing = packing_of(path);
  if (packing.container != Container::file) return visit_members(path, packing, visit);
  if (packing.compression != Compression::none) {
    ArchiveReader reader(path, packing);
    LONGSTRIDE_CHECK(reader.next() != nullptr, "{} is empty once unpacked", path);
    Item item(path, path, without_compression_suffix(path), "",
              [&](std::span<uint8_t> bytes) { return reader.read(bytes); });
    return visit(item);
  }
  const FileDescriptor file = open_for_reading(path);
  Item item(path, path, path, path,
            [&](std::span<uint8_t> bytes) { return read_some(file.get(), bytes, path); });
  visit(item);
}

}  // namespace

size_t Item::read(std::span<uint8_t> bytes) {
  const size_t known = std::min(bytes.size(), ahead_.size());
  std::copy_n(ahead_.begin(), known, bytes.begin());
  ahead_.erase(ahead_.begin(), ahead_.begin() + static_cast<ptrdiff_t>(known));
  return known + (known < bytes.size() ? reader_(bytes.subspan(known)) : 0);
}

std::span<const uint8_t> Item::peek(size_t count) {
  const size_t known = ahead_.size();
  if (known < count) {
    ahead_.resize(count);
    ahead_.resize(known + reader_(std::span(ahead_).subspan(known)));
  }
  return std::span(ahead_).first(std::min(count, ahead_.size()));
}

std::vector<uint8_t> Item::read_rest(int64_t limit) {
  std::vector<uint8_t> bytes;
  for (size_t done = 0;;) {
    bytes.resize(done + kBlock);
    const size_t count = read(std::span(bytes).subspan(done));
    done += count;
    LONGSTRIDE_CHECK(static_cast<int64_t>(done) <= limit, "{} has more than {}, which is too large here",
                     label_, human_bytes(static_cast<double>(limit)));
    if (count == kBlock) continue;
    bytes.resize(done);
    return bytes;
  }
}

bool is_plain_file(const std::string& path) {
  const Packing packing = packing_of(path);
  return packing.compression == Compression::none && packing.container == Container::file;
}

void visit_items(const std::vector<SourceFile>& files, const std::function<void(Item&)>& visit,
                 std::span<const std::string_view> never_empty) {
  for (const SourceFile& file : files) {
    const bool needed =
        std::find(never_empty.begin(), never_empty.end(), lower_extension(file.path)) != never_empty.end();
    LONGSTRIDE_CHECK(file.size > 0 || !needed, "{} is empty; fetch it again, or remove it", file.path);
    if (file.size == 0 && files.size() > 1) continue;  // an empty file in a folder adds nothing
    visit_file(file.path, visit);
  }
}

}  // namespace longstride::data
