#include "longstride/data/items.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"
#include "longstride/data/members.h"
#include "longstride/data/unpack.h"

namespace longstride::data {

namespace {

constexpr size_t kBlock = 128 * 1024;

using Visit = std::function<void(Item&)>;

bool is_one_of(std::span<const std::string_view> extensions, const std::string& extension) {
  return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

// Visits an item unless it is empty. For some extensions, empty is an error.
void visit_filled(Item& item, const Visit& visit, std::span<const std::string_view> never_empty) {
  if (!item.peek(1).empty()) return visit(item);
  LONGSTRIDE_CHECK(!is_one_of(never_empty, item.extension()), "{} is empty; fetch it again, or leave it out",
                   item.label());
}

// A file without a name, which is gone when closed, for bytes that are read more than once.
class SpooledBytes {
 public:
  SpooledBytes(ArchiveReader& reader, const std::string& label) : label_(label) {
    std::error_code error;
    const std::string folder = std::filesystem::temp_directory_path(error).string();
    if (!error) file_ = unnamed_file(folder);
    check(file_.get() >= 0);
    std::vector<uint8_t> block(kBlock);
    while (const size_t count = reader.read(block))
      check(write_all(file_.get(), std::span(block).first(count)));
  }
  void rewind() { check(::lseek(file_.get(), 0, SEEK_SET) == 0); }
  size_t read(std::span<uint8_t> bytes) { return read_some(file_.get(), bytes, label_); }

 private:
  void check(bool done) const {
    LONGSTRIDE_CHECK(done, "cannot keep {} in a temporary file: {}; set TMPDIR to a folder with room for it",
                     label_, last_system_error());
  }
  std::string label_;
  FileDescriptor file_;
};

Item member_item(const std::string& path, const std::string& name, Item::Reader reader) {
  return Item(path + ": " + printable_line(name), path + '\0' + name, name, "", std::move(reader));
}

// Visits the members that would remain after unpacking. Returns the plan's remark.
std::string visit_members(const std::string& path, const Packing& packing, const Visit& visit,
                          std::span<const std::string_view> never_empty) {
  const MemberPlan plan(path, packing);
  ArchiveReader reader(path, packing);
  for (int64_t number = 0; const std::optional<Entry> entry = reader.next(); ++number) {
    if (entry->kind != Entry::Kind::file) continue;
    const std::vector<std::string> names = plan.names(number, *entry);
    if (names.size() == 1) {
      Item item = member_item(path, names[0], [&](std::span<uint8_t> bytes) { return reader.read(bytes); });
      visit_filled(item, visit, never_empty);
    } else if (names.size() > 1) {
      SpooledBytes spooled(reader, path + ": " + printable_line(names[0]));
      for (const std::string& name : names) {
        spooled.rewind();
        Item item = member_item(path, name, [&](std::span<uint8_t> bytes) { return spooled.read(bytes); });
        visit_filled(item, visit, never_empty);
      }
    }
  }
  const std::string prefix =
      packing.prefix > 0 ? fmt::format("{} bytes in front of the zip archive not read", packing.prefix) : "";
  return join_remarks({plan.remark(), prefix});
}

std::string visit_file(const std::string& path, bool alone, const Visit& visit,
                       std::span<const std::string_view> never_empty) {
  const Packing packing = packing_of(path);
  if (packing.container != Container::file) return visit_members(path, packing, visit, never_empty);
  if (packing.plain()) {
    const FileDescriptor file = open_for_reading(path);
    Item item(path, path, path, path,
              [&](std::span<uint8_t> bytes) { return read_some(file.get(), bytes, path); });
    visit(item);
    return "";
  }
  ArchiveReader reader(path, packing);
  const bool filled = reader.next().has_value();
  Item item(path, path, without_compression_suffix(path), "",
            [&](std::span<uint8_t> bytes) { return filled ? reader.read(bytes) : 0; });
  LONGSTRIDE_CHECK(!alone || !item.peek(1).empty(), "{} is empty once unpacked", path);
  visit_filled(item, visit, never_empty);
  return reader.trailing_remark();
}

// Visits some of the first members, as far as they are quickly reached.
void peek_members(const std::string& path, const Packing& packing, const Visit& visit) {
  constexpr int kMostMembers = 16;
  constexpr int64_t kQuicklyPassed = 1 << 18;
  ArchiveReader reader(path, packing);
  for (int seen = 0; seen < kMostMembers;) {
    const std::optional<Entry> entry = reader.next();
    if (!entry) return;
    if (entry->kind != Entry::Kind::file || entry->encrypted || is_hidden(entry->name)) continue;
    Item item = member_item(path, entry->name, [&](std::span<uint8_t> bytes) { return reader.read(bytes); });
    visit_filled(item, visit, {});
    ++seen;
    if (entry->bytes < 0 || entry->bytes > kQuicklyPassed) return;
  }
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

bool is_plain_file(const std::string& path) { return packing_of(path).plain(); }

std::string visit_items(const std::vector<SourceFile>& files, const Visit& visit,
                        std::span<const std::string_view> never_empty) {
  std::string remarks;
  for (const SourceFile& file : files) {
    const bool needed = is_named_as_packed(file.path) || is_one_of(never_empty, lower_extension(file.path));
    LONGSTRIDE_CHECK(file.size > 0 || !needed, "{} is empty; fetch it again, or remove it", file.path);
    if (file.size == 0 && files.size() > 1) continue;  // an empty file in a folder adds nothing
    const std::string remark = visit_file(file.path, files.size() == 1, visit, never_empty);
    const bool named = !remark.empty() && files.size() > 1;
    remarks = join_remarks({remarks, named ? printable_line(file.path) + ": " + remark : remark});
  }
  return remarks;
}

std::string join_remarks(std::initializer_list<std::string> remarks) {
  std::string joined;
  for (const std::string& remark : remarks)
    if (!remark.empty()) joined += (joined.empty() ? "" : "; ") + remark;
  return joined;
}

void peek_items(const std::vector<SourceFile>& files, const Visit& visit) {
  for (const SourceFile& file : files) {
    if (file.size == 0) continue;
    const Packing packing = packing_of(file.path);
    if (packing.container == Container::file)
      visit_file(file.path, false, visit, {});
    else
      peek_members(file.path, packing, visit);
  }
}

}  // namespace longstride::data
