#include "longstride/data/corpus.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/data/cache.h"
#include "longstride/data/files.h"
#include "longstride/data/items.h"
#include "longstride/data/looks.h"
#include "longstride/data/modalities/modality.h"

namespace longstride {

using data::CachedFile;
using data::SourceFile;

namespace {

ImageShape wanted_shape(const DataConfig& config) {
  return {config.image_height, config.image_width, config.image_channels};
}

std::string describe(const DataConfig& config, const std::string& path, int64_t size,
                     const ImageShape& shape) {
  const std::string name = std::filesystem::path(path).filename().string();
  return fmt::format("{}: {}", printable_line(name.empty() ? path : name),
                     modality_of(config).describe(config, size, shape));
}

std::string with_remark(const std::string& description, const std::string& remark) {
  return remark.empty() ? description : description + ", " + remark;
}

void check_values(const DataConfig& config) {
  DataConfig copy = config;
  FieldList fields;
  fields.section("data");
  copy.fields(fields);
  for (const Field& field : fields.all()) field.check();
}

void check_named(const std::string& path) {
  LONGSTRIDE_CHECK(!path.empty(), "data.path is not set: it names the file, archive or folder to read");
}

DataObserver& common_observer() {
  static DataObserver observer;
  return observer;
}

}  // namespace

void set_data_observer(DataObserver observer) { common_observer() = std::move(observer); }
const DataObserver& data_observer() { return common_observer(); }

Corpus::Corpus(std::shared_ptr<const InputFile> file, int64_t offset, ImageShape shape,
               std::string description)
    : file_(std::move(file)), offset_(offset), shape_(shape), description_(std::move(description)) {
  LONGSTRIDE_CHECK(offset >= 0 && offset <= file_->bytes(), "{} ends before byte {}", file_->path(), offset);
}

Corpus::Corpus(std::vector<uint8_t> bytes, ImageShape shape, std::string description)
    : memory_(std::make_shared<const std::vector<uint8_t>>(std::move(bytes))),
      shape_(shape),
      description_(std::move(description)) {
  LONGSTRIDE_CHECK(size() > 0, "{} is empty", description_);
  LONGSTRIDE_CHECK(record_bytes() == 0 || size() % record_bytes() == 0,
                   "{} has {} bytes, which are no whole pictures of {} x {} x {}", description_, size(),
                   shape.height, shape.width, shape.channels);
}

void Corpus::read(int64_t begin, std::span<uint8_t> bytes) const {
  if (file_) return file_->read(offset_ + begin, bytes);
  LONGSTRIDE_CHECK(begin >= 0 && begin + std::ssize(bytes) <= size(), "bytes [{}, {}) of {}, which has {}",
                   begin, begin + std::ssize(bytes), description_, size());
  std::copy_n(memory_->begin() + begin, bytes.size(), bytes.begin());
}

void Segment::read(int64_t from, std::span<uint8_t> bytes) const {
  const auto count = static_cast<int64_t>(bytes.size());
  LONGSTRIDE_CHECK(from >= 0 && from + count <= size(), "bytes [{}, {}) of a part of {}", from, from + count,
                   size());
  if (count > 0) corpus->read(begin + from, bytes);
}

std::vector<uint8_t> Segment::read(int64_t from, int64_t count) const {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  read(from, bytes);
  return bytes;
}

std::string kind_of_data(const std::string& path) {
  check_named(path);
  return data::kind_by_looks(data::list_files(path, nullptr));
}

Corpus open_corpus(const DataConfig& config, const std::string& path, const DataObserver& observer) {
  check_values(config);
  check_named(path);
  const Modality& modality = modality_of(config);
  std::string links;
  const std::vector<SourceFile> files = data::list_files(path, &links);
  if (modality.as_is && observer.note) {
    const std::string line = data::looks_unlike_text(path, files);
    if (!line.empty()) observer.note(line);
  }
  if (modality.as_is && files.size() == 1 && data::is_plain_file(files[0].path)) {
    auto file = std::make_shared<const InputFile>(files[0].path);
    LONGSTRIDE_CHECK(file->bytes() > 0, "{} is empty", path);
    const int64_t size = file->bytes();
    return Corpus(std::move(file), 0, {}, with_remark(describe(config, path, size, {}), links));
  }
  data::CacheRequest request{config.cache, path, files, modality.encodings(config)};
  const ImageShape wanted = wanted_shape(config);
  if (modality.records)
    request.fits = [wanted](const ImageShape& found) {
      return (wanted.height == 0 || wanted.height == found.height) &&
             (wanted.width == 0 || wanted.width == found.width) &&
             (wanted.channels == 0 || wanted.channels == found.channels);
    };
  const CachedFile cached = data::decode_once(
      request,
      [&](const std::string& folder, const data::DecodeSink& sink, const data::ItemMark& mark) {
        return modality.decode(config, files, folder, sink, mark);
      },
      observer);
  const int64_t size = cached.file->bytes() - cached.offset;
  return Corpus(
      cached.file, cached.offset, cached.shape,
      with_remark(describe(config, path, size, cached.shape), data::join_remarks({cached.remark, links})));
}

}  // namespace longstride
