// TensorBoard's event files: TFRecords (length as u64, masked crc32c of the length, data, masked crc32c of
// the data, all little-endian) of the messages in event.proto. Source: TensorFlow's tensorboard documentation
// and record_writer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace longstride {

// CRC-32C (Castagnoli, RFC 3720 appendix B.4).
uint32_t crc32c(std::string_view bytes);
// The form in which TFRecord stores it, so that a checksum of checksums is no fixed point.
uint32_t masked_crc32c(std::string_view bytes);
std::string tf_record(std::string_view data);

using Scalars = std::vector<std::pair<std::string, double>>;

// A new event file in a folder. Each call hands its record to the system before it returns.
class EventFile {
 public:
  // `folder` must exist; `time` is in seconds since 1970. TensorBoard then hides events of steps above
  // `last_step` in older files of the folder; -1 for a new run. Throws Error.
  EventFile(const std::string& folder, double time, int64_t last_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void add(int64_t step, double time, const Scalars& scalars);
  const std::string& path() const { return path_; }

 private:
  void append(std::string_view message);

  std::string path_;
  int descriptor_ = -1;
};

// Appends all bytes to an open file, in one call to the system if that takes them all. Throws Error that
// names `path`.
void append_bytes(int descriptor, std::string_view bytes, const std::string& path);

}  // namespace longstride
