#include "longstride/data/modalities/text.h"

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/data/files.h"

namespace longstride {

namespace {

std::string describe(const DataConfig&, int64_t size, const ImageShape&) {
  return fmt::format("{} bytes", size);
}

std::vector<std::string> encodings(const DataConfig&) { return {"text 3"}; }

data::Decoded decode(const DataConfig&, const std::vector<data::SourceFile>& files, const std::string&,
                     const data::DecodeSink& sink, const data::ItemMark&) {
  std::vector<uint8_t> block(1 << 20);
  const std::string remark = data::visit_items(files, [&](data::Item& item) {
    while (const size_t count = item.read(block)) sink(std::span(block).first(count));
  });
  return {{}, remark};
}

std::vector<uint8_t> prime(const std::string& path, const DataConfig&, const ImageShape&) {
  return data::read_whole_file(path, kLargestText);
}

void write(const std::string& path, std::span<const std::span<const uint8_t>> samples, const DataConfig&,
           const ImageShape&) {
  write_output(path, [&](ByteSink& sink) {
    for (const std::span<const uint8_t> sample : samples) sink.write(sample.data(), std::ssize(sample));
  });
}

std::vector<uint8_t> restore(std::vector<uint8_t> bytes, const ImageShape&) { return bytes; }

}  // namespace

constinit const Modality kText{
    .name = "text",
    .as_is = true,
    .records = false,
    .timed = false,
    .one = "text",
    .all = "text",
    .verb = "is",
    .reads = "any bytes",
    .formats = "any file",
    .describe = describe,
    .looks = {},
    .other_looks = {},
    .encodings = encodings,
    .decode = decode,
    .prime = prime,
    .extension = "",
    .write = write,
    .material = nullptr,
    .restore = restore,
    .fast = {.contexts = {12288, 3072, 1024, 256},
             .cpu_minutes = 30,
             .cpu_context = 2,
             .cpu_batch_bytes = 2048,
             .strided = false,
             .short_contexts_first = true},
};

}  // namespace longstride
