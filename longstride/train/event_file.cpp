#include "longstride/train/event_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/train/event.pb.h"

namespace longstride {

namespace {

static_assert(std::endian::native == std::endian::little, "TFRecord is little-endian");

constexpr std::array<uint32_t, 256> make_crc_table() {
  constexpr uint32_t reversed_polynomial = 0x82f63b78u;
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1u ? reversed_polynomial : 0u);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

template <class T>
void append_number(std::string& bytes, T number) {
  char raw[sizeof number];
  std::memcpy(raw, &number, sizeof number);
  bytes.append(raw, sizeof number);
}

std::string host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

constexpr std::string_view kEventPrefix = "events.out.tfevents.";

// The time for the name of a new file. The name must sort after all names that are there, even if the clock
// went back or another host's name sorts first.
int64_t time_of_name(const std::string& folder, int64_t now) {
  const std::string own = fmt::format(".{}.", host_name());
  std::error_code ignored;
  for (std::filesystem::directory_iterator entry = entries_of(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kEventPrefix)) continue;
    int64_t time = -1;
    const char* begin = name.data() + kEventPrefix.size();
    const auto [rest, error] = std::from_chars(begin, name.data() + name.size(), time);
    if (error != std::errc() || time > 9'999'999'998) continue;
    const bool counted = std::string_view(rest).starts_with(own);  // the same second of this host
    now = std::max(now, time == now && counted ? time : time < now ? now : time + 1);
  }
  return now;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xffu];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string tf_record(std::string_view data) {
  std::string record;
  append_number(record, static_cast<uint64_t>(data.size()));
  append_number(record, masked_crc32c(record));
  record += data;
  append_number(record, masked_crc32c(data));
  return record;
}

void append_bytes(int descriptor, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    LONGSTRIDE_CHECK(written > 0, "cannot write {}: {}", path, reason_with_advice());
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

EventFile::EventFile(const std::string& folder, double time, int64_t last_step) {
  // TensorBoard reads the files of a folder in the order of their names: time first, then a count within the
  // second.
  const std::string stem = fmt::format("{}/{}{:010}.{}", folder, kEventPrefix,
                                       time_of_name(folder, static_cast<int64_t>(time)), host_name());
  for (int count = 0; descriptor_ < 0; ++count) {
    path_ = fmt::format("{}.{:04}", stem, count);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC;
    descriptor_ = despite_signals([&] { return open(path_.c_str(), kFlags, 0666); });
    LONGSTRIDE_CHECK(descriptor_ >= 0 || errno == EEXIST, "cannot create {}: {}", path_, last_system_error());
  }
  events::Event event;
  event.set_wall_time(time);
  event.set_file_version("brain.Event:2");
  append(event.SerializeAsString());
  if (last_step < 0) return;
  // From this step on, this file replaces what older files of the run say.
  event.set_step(last_step + 1);
  event.mutable_session_log()->set_status(events::SessionLog::START);
  append(event.SerializeAsString());
}

EventFile::~EventFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void EventFile::append(std::string_view message) { append_bytes(descriptor_, tf_record(message), path_); }

void EventFile::add(int64_t step, double time, const Scalars& scalars) {
  events::Event event;
  event.set_wall_time(time);
  event.set_step(step);
  for (const auto& [tag, number] : scalars) {
    events::Summary::Value* value = event.mutable_summary()->add_value();
    value->set_tag(tag);
    value->set_simple_value(static_cast<float>(number));
  }
  append(event.SerializeAsString());
}

}  // namespace longstride
