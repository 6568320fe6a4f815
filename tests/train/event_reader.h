// Reads event files for the tests, from the wire format's description alone: no generated code, no code of
// the writer.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace longstride {

struct ReadEvent {
  double time = 0;
  int64_t step = 0;
  std::string version;
  bool starts_session = false;
  std::vector<std::pair<std::string, float>> scalars;
};

// One protobuf message, field by field.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}
  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    field = static_cast<int>(key >> 3);
    switch (key & 7) {
      case 0:
        number = varint();
        break;
      case 1:
        content = take(8);
        break;
      case 2:
        content = take(varint());
        break;
      case 5:
        content = take(4);
        break;
      default:
        throw std::runtime_error("unknown wire type");
    }
    return true;
  }
  template <class T>
  T fixed() const {
    if (content.size() != sizeof(T)) throw std::runtime_error("wrong width");
    T value;
    std::memcpy(&value, content.data(), sizeof value);
    return value;
  }

  int field = 0;
  uint64_t number = 0;
  std::string_view content;

 private:
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) throw std::runtime_error("message too short");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    throw std::runtime_error("varint too long");
  }
  std::string_view bytes_;
};

inline ReadEvent parse_event(std::string_view bytes) {
  ReadEvent event;
  for (WireReader reader(bytes); reader.next();) {
    if (reader.field == 1) event.time = reader.fixed<double>();
    if (reader.field == 2) event.step = static_cast<int64_t>(reader.number);
    if (reader.field == 3) event.version = reader.content;
    if (reader.field == 5)
      for (WireReader summary(reader.content); summary.next();) {
        auto& [tag, value] = event.scalars.emplace_back();
        for (WireReader member(summary.content); member.next();) {
          if (member.field == 1) tag = member.content;
          if (member.field == 2) value = member.fixed<float>();
        }
      }
    if (reader.field == 7)
      for (WireReader session(reader.content); session.next();)
        event.starts_session = session.field == 1 && session.number == 1;
  }
  return event;
}

inline std::vector<ReadEvent> read_events(const std::string& path) {
  const std::string bytes = read_bytes(path);
  std::vector<ReadEvent> events;
  for (size_t position = 0; position < bytes.size();) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data() + position, sizeof length);
    events.push_back(parse_event(std::string_view(bytes).substr(position + 12, length)));
    position += 16 + length;
  }
  return events;
}

}  // namespace longstride
