#include "cli/sample_output.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"

#include "cli/output_file.h"
#include "cli/sample_files.h"
#include "cli/standard_streams.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

constexpr double kGridSeconds = 3;   // between grids
constexpr double kGridShare = 0.05;  // the part of the time that grids may take

std::vector<std::span<const uint8_t>> bytes_of(const std::vector<Sequence>& samples) {
  std::vector<std::span<const uint8_t>> bytes;
  for (const Sequence& sample : samples) bytes.emplace_back(sample.bytes);
  return bytes;
}

}  // namespace

// ---- text ----

TextOutput::TextOutput(int64_t count, bool enabled)
    : count_(count), enabled_(enabled), terminal_(isatty(STDOUT_FILENO)) {}

void TextOutput::put(std::string_view text) { write_result(text); }

void TextOutput::flush() { flush_results(); }

void TextOutput::begin() {
  if (begun_) return;
  begun_ = true;
  if (terminal_ && count_ > 1)
    put(fmt::format("{}---- sample {} of {} ----\n", sample_ > 0 ? "\n" : "", sample_ + 1, count_));
}

void TextOutput::show(std::span<const uint8_t> bytes) {
  if (!terminal_) return put({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  for (const uint8_t byte : bytes) put(text_.push(byte));
}

void TextOutput::stop() {
  if (!enabled_ || !begun_) return;
  if (terminal_) put(text_.finish() + "\n");
  begun_ = false;
  flush();
}

void TextOutput::follow(const Generator& generator) {
  if (!enabled_) return;
  const std::vector<Sequence>& samples = generator.sequences();
  for (; sample_ < std::ssize(samples) && !generator.replaying(sample_); ++sample_, shown_ = 0) {
    const Sequence& sample = samples[sample_];
    begin();
    show(std::span(sample.bytes).subspan(shown_));
    shown_ = sample.known();
    if (!sample.finished()) break;
    stop();
  }
  if (terminal_) flush();
}

// ---- all kinds ----

SampleOutput::SampleOutput(SampleTask& task, bool json)
    : task_(task),
      job_(task.job),
      direct_(is_direct_output(job_.session.output)),
      text_(std::ssize(job_.session.sequences),
            job_.modality().as_is && job_.session.output.empty() && !json) {}

template <class Write>
void SampleOutput::write_file(const std::string& path, Write&& write) {
  check_own_output(task_, path);
  write(path);
  if (!direct_) note_written(job_.session.written, path);
  written_ = true;
}

void SampleOutput::write_grid(const Generator& generator) {
  const Clock::time_point begin = Clock::now();
  const std::vector<std::span<const uint8_t>> samples = bytes_of(generator.sequences());
  write_file(job_.session.output, [&](const std::string& path) {
    job_.modality().write(path, samples, job_.config.data, job_.shape);
  });
  last_grid_ = Clock::now();
  grid_seconds_ = std::chrono::duration<double>(last_grid_ - begin).count();
}

void SampleOutput::follow(const Generator& generator) {
  text_.follow(generator);
  if (direct_ || !job_.modality().records || generator.done() || generator.replaying()) return;
  const double since = std::chrono::duration<double>(Clock::now() - last_grid_).count();
  if (since >= std::max(kGridSeconds, grid_seconds_ / kGridShare)) write_grid(generator);
}

std::vector<std::string> SampleOutput::write_files(const Generator& generator) {
  const std::vector<Sequence>& samples = generator.sequences();
  if (job_.modality().records) {
    write_grid(generator);
    return {job_.session.output};
  }
  if (direct_ && job_.modality().as_is) {
    job_.modality().write(job_.session.output, bytes_of(samples), job_.config.data, job_.shape);
    return {job_.session.output};
  }
  std::vector<std::string> files;
  for (int64_t i = 0; i < std::ssize(samples); ++i) {
    const std::span<const uint8_t> bytes(samples[i].bytes);
    if (bytes.empty()) continue;
    files.push_back(numbered_output(job_.session.output, i, std::ssize(samples)));
    write_file(files.back(), [&](const std::string& path) {
      job_.modality().write(path, {&bytes, 1}, job_.config.data, job_.shape);
    });
  }
  return files;
}

std::vector<std::string> SampleOutput::finish(const Generator& generator) {
  text_.follow(generator);
  text_.stop();
  const auto& samples = generator.sequences();
  const bool begun =
      std::any_of(samples.begin(), samples.end(), [](const Sequence& s) { return s.known() > 0; });
  if (job_.session.output.empty() || !begun) return {};
  const std::vector<std::string> files = write_files(generator);
  const auto whole =
      std::count_if(samples.begin(), samples.end(), [](const Sequence& s) { return s.finished(); });
  std::string note;
  if (!generator.done())
    note =
        fmt::format(" ({} of {} samples are finished{})", whole, samples.size(),
                    job_.modality().records ? ", what is grey is not painted yet" : ", the others end early");
  if (files.size() == 1)
    say("wrote {}{}", files[0], note);
  else
    say("wrote {} files, {} to {}{}", files.size(), files.front(), files.back(), note);
  return files;
}

}  // namespace longstride::cli
