// A run may have millions of lines, so they are read by hand, and only unusual ones by the JSON library.
#include "longstride/report/metrics_reader.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/checkpoint/json_fields.h"

namespace longstride {

namespace {

constexpr int64_t kPiece = int64_t{4} << 20;  // bytes read at a time; no line of metrics is longer
constexpr double kNotFinite = std::numeric_limits<double>::quiet_NaN();
constexpr double kLongestGap = 3600;  // seconds between two lines; more is a pause

using Row = std::vector<std::pair<std::string, double>>;

// Reads what MetricsLog writes. Returns false for everything else.
bool parse_plain(std::string_view line, Row& row) {
  size_t at = 0, fields = 0;
  const auto skip = [&] {
    while (at < line.size() && (line[at] == ' ' || line[at] == '\t' || line[at] == '\r')) ++at;
  };
  const auto take = [&](char wanted) {
    skip();
    return at < line.size() && line[at] == wanted ? (++at, true) : false;
  };
  if (!take('{')) return false;
  for (bool more = true; more; more = take(',')) {
    if (!take('"')) return false;
    const size_t begin = at;
    while (at < line.size() && line[at] != '"' && line[at] != '\\') ++at;
    if (at >= line.size() || line[at] == '\\') return false;
    const std::string_view name = line.substr(begin, at++ - begin);
    if (!take(':')) return false;
    skip();
    double value = kNotFinite;
    if (line.substr(at).starts_with("null")) {
      at += 4;
    } else {
      const auto [end, error] = std::from_chars(line.data() + at, line.data() + line.size(), value);
      if (error == std::errc::invalid_argument) return false;
      if (error != std::errc()) value = kNotFinite;
      at = static_cast<size_t>(end - line.data());
    }
    if (fields < row.size())
      row[fields].first.assign(name), row[fields].second = value;  // keeps the memory of the last line's
    else
      row.emplace_back(name, value);
    ++fields;
  }
  if (!take('}')) return false;
  skip();
  row.resize(fields);
  return at == line.size();
}

}  // namespace

bool parse_metrics_line(std::string_view line, Row& row) {
  if (parse_plain(line, row)) return true;
  row.clear();
  const nlohmann::json parsed = parse_json_or_discard(line);
  if (!parsed.is_object()) return false;
  for (const auto& [name, value] : parsed.items())
    if (value.is_number() || value.is_null())
      row.emplace_back(name, value.is_null() ? kNotFinite : value.get<double>());
  return true;
}

void MetricsReader::begin_again() {
  const int64_t tail = tail_;
  *this = MetricsReader(std::move(path_), tail);
}

void MetricsReader::refresh() {
  const int file = despite_signals([&] { return open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (file < 0 && (errno == ENOENT || errno == ENOTDIR)) return begin_again();
  LONGSTRIDE_CHECK(file >= 0, "cannot open {}: {}", path_, last_system_error());
  struct Closer {
    int file;
    ~Closer() { close(file); }
  } closer{file};
  struct stat status {};
  LONGSTRIDE_CHECK(fstat(file, &status) == 0, "cannot read {}: {}", path_, last_system_error());
  LONGSTRIDE_CHECK(S_ISREG(status.st_mode), "cannot read {}: it is no regular file", path_);
  if (inode_ != 0 && (inode_ != status.st_ino || status.st_size < offset_)) begin_again();
  inode_ = status.st_ino;
  bool at_line = true;
  if (offset_ == 0 && tail_ > 0 && status.st_size > tail_)
    offset_ = status.st_size - tail_, at_line = false, seconds_known_ = false;

  std::string piece(static_cast<size_t>(kPiece), '\0');
  for (;;) {
    const ssize_t count = pread(file, piece.data(), piece.size(), offset_);
    if (count < 0 && errno == EINTR) continue;
    LONGSTRIDE_CHECK(count >= 0, "cannot read {}: {}", path_, last_system_error());
    const std::string_view read(piece.data(), static_cast<size_t>(count));
    size_t begin = 0;
    for (size_t end = 0; (end = read.find('\n', begin)) != std::string_view::npos; begin = end + 1) {
      if (!at_line)
        at_line = true;
      else if (std::exchange(skipping_, false))
        ++lines_, ++broken_;
      else
        take_line(read.substr(begin, end - begin));
    }
    offset_ += static_cast<int64_t>(begin);
    unfinished_ = begin < read.size();
    if (begin == 0 && count == kPiece) {  // no line is so long
      if (broken_ == 0) first_broken_ = lines_ + 1;
      skipping_ = true;
      offset_ += count;
    } else if (begin == 0) {
      return;
    }
  }
}

void MetricsReader::take_line(std::string_view line) {
  ++lines_;
  const auto is_step = [](const auto& field) {
    return field.first == "step" && field.second >= 0 && field.second < 9e15 &&
           field.second == std::floor(field.second);
  };
  if (!parse_metrics_line(line, row_) || std::none_of(row_.begin(), row_.end(), is_step)) {
    if (broken_++ == 0) first_broken_ = lines_;
    return;
  }
  take_row(row_);
}

void MetricsReader::take_row(const Row& row) {
  const auto value_of = [&](std::string_view name) {
    const auto found = std::find_if(row.begin(), row.end(), [&](const auto& f) { return f.first == name; });
    return found == row.end() ? kNotFinite : found->second;
  };
  const auto step = static_cast<int64_t>(value_of("step"));
  if (step < last_step_) {
    ++backward_;
    return;
  }
  ++rows_;
  last_step_ = step;
  const double time = value_of("time");
  if (std::isfinite(time)) last_time_ = std::max(last_time_, time);
  for (const auto& [name, value] : row) {
    if (name == "step" || name == "time") continue;
    const auto known = curves_.find(name);
    if (known != curves_.end())
      known->second.add(step, value);
    else if (curves_.size() < kMostCurves)
      curves_[name].add(step, value);
    else
      ++crowded_;
  }
  // Time of training leaves out validation and pauses; runs of older versions have only the time of day.
  const double bytes = value_of("train/bytes"), rate = value_of("train/tokens_per_second");
  const bool knows_bytes = std::isfinite(bytes) && bytes >= now_.bytes;
  if (!knows_bytes && !std::isfinite(rate)) return;
  if (!std::exchange(seconds_known_, true))
    now_.seconds = 0;  // the bytes before the tail took a time that is not known
  else if (knows_bytes && rate > 0)
    now_.seconds += (bytes - now_.bytes) / rate;
  else if (clock_time_ > 0 && time > clock_time_ && time - clock_time_ < kLongestGap)
    now_.seconds += time - clock_time_;
  if (std::isfinite(time)) clock_time_ = time;
  if (knows_bytes) now_.bytes = bytes;
  now_.step = step;
  clock_.add(now_);
}

const ThinCurve& MetricsReader::curve(const std::string& name) const {
  static const ThinCurve none;
  const auto found = curves_.find(name);
  return found == curves_.end() ? none : found->second;
}

std::vector<std::string> MetricsReader::remarks() const {
  std::vector<std::string> remarks;
  const auto lines = [](int64_t count) { return fmt::format("{} line{}", count, count == 1 ? "" : "s"); };
  if (broken_ > 0)
    remarks.push_back(fmt::format("{} of metrics.jsonl cannot be read and {} left out, the first is line {}",
                                  lines(broken_), broken_ == 1 ? "is" : "are", first_broken_));
  if (unfinished_) remarks.emplace_back("the last line of metrics.jsonl is not whole yet");
  if (backward_ > 0)
    remarks.push_back(
        fmt::format("{} of metrics.jsonl go back to an earlier step and are left out", lines(backward_)));
  if (crowded_ > 0)
    remarks.push_back(
        fmt::format("metrics.jsonl has more than {} names; the others are left out", kMostCurves));
  for (const auto& [name, curve] : curves_)
    if (curve.not_finite() > 0)
      remarks.push_back(fmt::format("{} is not finite in {}, the first of step {}", name,
                                    lines(curve.not_finite()), curve.first_not_finite()));
  return remarks;
}

}  // namespace longstride
