#include <utility>

#include "longstride/base/check.h"
#include "longstride/compress/codec.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/facade/model_state.h"
#include "longstride/longstride.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/gpu_room.h"

namespace longstride {

namespace {

// A file in memory.
class MemorySink final : public ByteSink {
 public:
  using ByteSink::write;
  void write(const void* data, int64_t bytes) override {
    const auto* begin = static_cast<const uint8_t*>(data);
    content_.insert(content_.end(), begin, begin + bytes);
  }
  std::vector<uint8_t> take() { return std::move(content_); }

 private:
  std::vector<uint8_t> content_;
};

void make_coder(Codec& codec, const LoadedModel& loaded, const char* what) {
  check_gpu_room(loaded.device(), codec.bytes(), what, "free some of the GPU's memory");
  check_cpu_room(loaded.device(), codec.bytes(), what, "free some memory");
  codec.make_coder();
}

// The coder says how many bytes more are done.
CodingProgress summed(const Progress& progress, int64_t total) {
  if (!progress) return {};
  return [&progress, total, done = int64_t{0}](int64_t more) mutable { progress(done += more, total); };
}

}  // namespace

std::vector<uint8_t> Model::compress(std::span<const uint8_t> bytes, const Progress& progress,
                                     const CompressOptions& options) const {
  const LoadedModel& loaded = state_->loaded;
  const DataConfig& data = loaded.config().data;
  CompressedHeader header;
  header.kind = data.kind;
  header.bytes = std::ssize(bytes);
  if (modality_of(data).records) {
    LONGSTRIDE_CHECK(header.bytes == context(), "a picture has {} bytes, {} are given", context(),
                     header.bytes);
    header.shape = {data.image_height, data.image_width, data.image_channels};
  }
  const AtWork work = state_->at_work();
  Codec codec(loaded, header.bytes, {.portable = options.portable});
  make_coder(codec, loaded, "compression");
  codec.describe(header, loaded.quantized() != nullptr ? "int8" : "auto");
  MemorySink sink;
  CompressedWriter writer(sink, header);
  codec.encode(
      header,
      [&](int64_t begin, int64_t count) {
        const auto part = bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
        return std::vector<uint8_t>(part.begin(), part.end());
      },
      writer, summed(progress, header.bytes));
  writer.finish();
  return sink.take();
}

std::vector<uint8_t> Model::decompress(std::span<const uint8_t> compressed, const Progress& progress) const {
  const CodedNames names{.file = "what is to be decompressed", .run = "this model"};
  const CompressedFile file({compressed.begin(), compressed.end()}, names.file);
  const AtWork work = state_->at_work();
  Codec codec(state_->loaded, file.header(), names);
  make_coder(codec, state_->loaded, "decompression");
  std::vector<uint8_t> bytes(static_cast<size_t>(file.header().bytes));
  std::span<uint8_t> rest = bytes;
  const CodingProgress done = summed(progress, std::ssize(bytes));
  for (const CompressedFrame& frame : file.frames()) {
    codec.decode(frame, rest.first(static_cast<size_t>(frame.bytes)), done);
    rest = rest.subspan(static_cast<size_t>(frame.bytes));
  }
  return bytes;
}

}  // namespace longstride
