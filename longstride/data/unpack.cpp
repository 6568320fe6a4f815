#include "longstride/data/unpack.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <string_view>

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"

namespace longstride::data {

namespace {

constexpr size_t kBlock = 128 * 1024;
constexpr size_t kTarBlock = 512;
constexpr const char* kAdvice = "it is damaged or cut off; fetch or make it again";

bool all_zero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

std::string text_or(const char* local, const char* utf8) {
  return local != nullptr ? local : utf8 != nullptr ? utf8 : "";
}

// Passes decompressed bytes to libarchive.
la_ssize_t read_compressed(archive* reader, void* data, const void** block) {
  try {
    const std::span<const uint8_t> bytes = static_cast<DecompressedBlocks*>(data)->next();
    *block = bytes.data();
    return static_cast<la_ssize_t>(bytes.size());
  } catch (const std::exception& error) {  // which must not pass through libarchive
    archive_set_error(reader, EINVAL, "%s", error.what());
    return ARCHIVE_FATAL;
  }
}

[[noreturn]] void fail_to_unpack(const std::string& path, const Packing& packing, std::string_view reason) {
  const std::string shown = printable_line(reason);
  if (packing.compression == Compression::zstd && !reads_long_windows() &&
      reason.find("too much memory") != std::string_view::npos)
    fail(
        "cannot unpack {}: its window is longer than 128 MiB; make it again with zstd --long=27, or build "
        "longstride with libzstd-dev",
        path);
  if (reason.find("not enough memory") != std::string_view::npos)
    fail("cannot unpack {}: there is not enough memory for the window that it was made with (zstd --long)",
         path);
  if (reason.find("ictionary") != std::string_view::npos)
    fail("cannot unpack {}: it was made with a dictionary; unpack it with zstd -d -D DICTIONARY", path);
  if (reason.find("nsupported") != std::string_view::npos)
    fail("cannot unpack {}: {}; unpack it with another program and give the folder", path, shown);
  fail("cannot unpack {}: {} ({})", path, shown, kAdvice);
}

std::unique_ptr<CompressedInput> open_input(const std::string& path, const Packing& packing) {
  if (packing.container == Container::zip) return nullptr;
  try {
    return open_compressed(path, packing.begin, packing.compression);
  } catch (const Error& error) {
    fail_to_unpack(path, packing, error.what());
  }
}

la_int64_t skip_compressed(archive*, void* data, la_int64_t count) {
  return static_cast<DecompressedBlocks*>(data)->skip(count);
}

// A tar ends with zero blocks. Without them a cut between two members would go unnoticed.
void check_tar_end(int file, const std::string& path) {
  const int64_t blocks = ::lseek(file, 0, SEEK_END) / static_cast<int64_t>(kTarBlock);
  const bool whole =
      blocks > 0 && all_zero(bytes_at(file, (blocks - 1) * static_cast<int64_t>(kTarBlock), kTarBlock, path));
  LONGSTRIDE_CHECK(
      whole,
      "cannot unpack {}: the end mark of the tar archive is missing; it is damaged, cut off or one "
      "of several volumes; fetch or make it again",
      path);
}

}  // namespace

int64_t DecompressedBlocks::skip(int64_t count) {
  const int64_t skipped = input->skip(count);
  total += skipped;
  return skipped;
}

std::span<const uint8_t> DecompressedBlocks::next() {
  const std::span<const uint8_t> bytes = input->next();
  total += std::ssize(bytes);
  if (!bytes.empty() || total % std::ssize(padding) == 0) return bytes;
  const size_t missing = padding.size() - static_cast<size_t>(total % std::ssize(padding));
  total += static_cast<int64_t>(missing);
  return std::span(padding).first(missing);
}

void ArchiveReader::Free::operator()(archive* reader) const { archive_read_free(reader); }
ArchiveReader::~ArchiveReader() = default;

ArchiveReader::ArchiveReader(const std::string& path, Packing packing)
    : path_(path),
      packing_(packing),
      file_(open_for_reading(path)),
      input_(open_input(path, packing)),
      blocks_{input_.get(), std::vector<uint8_t>(packing.container == Container::tar ? kTarBlock : 1), 0},
      archive_(archive_read_new()) {
  LONGSTRIDE_CHECK(archive_ != nullptr, "cannot read {}: out of memory", path);
  switch (packing.container) {
    case Container::file:
      archive_read_support_format_raw(get());
      archive_read_support_format_empty(get());
      break;
    case Container::tar:
      archive_read_support_format_tar(get());
      archive_read_support_format_empty(get());
      // Archives that were joined (cat, tar -A) are read to the end of the file.
      archive_read_set_options(get(), "tar:read_concatenated_archives");
      if (packing.compression == Compression::none) check_tar_end(file_.get(), path);
      break;
    // The seeking reader needs the directory at the end, so a cut-off archive cannot pass for a shorter one.
    case Container::zip:
      archive_read_support_format_zip_seekable(get());
      break;
  }
  if (input_) {
    check(archive_read_open2(get(), &blocks_, nullptr, read_compressed, skip_compressed, nullptr));
  } else {
    LONGSTRIDE_CHECK(::lseek(file_.get(), 0, SEEK_SET) == 0, "cannot read {}: {}", path, last_system_error());
    check(archive_read_open_fd(get(), file_.get(), kBlock));
  }
  is_open_ = true;
}

std::optional<Entry> ArchiveReader::next() {
  archive_entry* found = nullptr;
  const int status = archive_read_next_header(get(), &found);
  // A stream that breaks before its first byte looks like an empty one, except for the error that it leaves.
  if (status == ARCHIVE_EOF && archive_error_string(get()) == nullptr) {
    at_end_ = true;
    return std::nullopt;
  }
  check(status == ARCHIVE_EOF ? ARCHIVE_FATAL : status);
  ++entries_;
  Entry entry;
  // Where the locale cannot show a name, only its UTF-8 form exists.
  entry.name = text_or(archive_entry_pathname(found), archive_entry_pathname_utf8(found));
  if (entry.name.empty()) entry.name = fmt::format("member {}", entries_);
  entry.bytes = archive_entry_size_is_set(found) != 0 ? archive_entry_size(found) : -1;
  entry.encrypted = archive_entry_is_data_encrypted(found) != 0;
  const std::string hard_link = text_or(archive_entry_hardlink(found), archive_entry_hardlink_utf8(found));
  const auto type = archive_entry_filetype(found);
  if (!hard_link.empty() && entry.bytes <= 0) {
    entry.kind = Entry::Kind::hard_link;
    entry.target = hard_link;
  } else if (type == AE_IFREG || !hard_link.empty()) {
    entry.kind = Entry::Kind::file;
  } else if (type == AE_IFDIR) {
    entry.kind = Entry::Kind::folder;
  } else if (type == AE_IFLNK) {
    entry.kind = Entry::Kind::symbolic_link;
    entry.target = text_or(archive_entry_symlink(found), archive_entry_symlink_utf8(found));
  }
  return entry;
}

size_t ArchiveReader::read(std::span<uint8_t> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const la_ssize_t count = archive_read_data(get(), bytes.data() + done, bytes.size() - done);
    if (count == ARCHIVE_RETRY) continue;
    check(count < 0 ? ARCHIVE_FATAL : ARCHIVE_OK);
    if (count == 0) {
      at_end_ = packing_.container == Container::file;
      break;
    }
    done += static_cast<size_t>(count);
  }
  return done;
}

int64_t ArchiveReader::first_other_than_zero(int64_t begin) const {
  for (int64_t at = begin;;) {
    const std::vector<uint8_t> block = bytes_at(file_.get(), at, kBlock, path_);
    if (block.empty()) return -1;
    const auto found = std::find_if(block.begin(), block.end(), [](uint8_t byte) { return byte != 0; });
    at += found - block.begin();
    if (found != block.end()) return at;
  }
}

std::string ArchiveReader::trailing_remark() const {
  if (packing_.compression == Compression::none || !at_end_) return "";
  const int64_t end = input_->consumed();
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0 || end >= status.st_size) return "";
  const int64_t count = status.st_size - end;
  if (first_other_than_zero(end) < 0) return "";
  const std::vector<uint8_t> first = bytes_at(file_.get(), end, kBlock, path_);
  const std::string name = name_of(packing_.compression);
  LONGSTRIDE_CHECK(!may_begin_stream(first, packing_.compression),
                   "cannot unpack {}: a further {} stream ends early ({})", path_, name, kAdvice);
  // The programs gzip and bzip2 only warn of bytes that follow; those of the other formats refuse them.
  LONGSTRIDE_CHECK(packing_.compression == Compression::gzip || packing_.compression == Compression::bzip2,
                   "cannot unpack {}: {} bytes that are not {} follow its end ({})", path_, count, name,
                   kAdvice);
  return fmt::format("{} bytes behind the end of the {} stream not read", count, name);
}

// Warnings (a name that the locale cannot show) do not affect the bytes.
void ArchiveReader::check(int status) const {
  if (status == ARCHIVE_OK || status == ARCHIVE_WARN) return;
  if (is_open_ && packing_.container == Container::zip && archive_read_has_encrypted_entries(get()) == 1)
    fail("cannot unpack {}: it is encrypted; unpack it with its password and give the folder", path_);
  const char* reason = archive_error_string(get());
  fail_to_unpack(path_, packing_, reason == nullptr ? "unknown error" : reason);
}

}  // namespace longstride::data
