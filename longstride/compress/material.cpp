#include "longstride/compress/material.h"

#include <filesystem>
#include <utility>

#include <sys/stat.h>

#include "longstride/base/check.h"
#include "longstride/run/run_data.h"

namespace longstride {

namespace {

constexpr int kPermissionBits = 0777;

}  // namespace

CompressMaterial::CompressMaterial(const RunConfig& config, const std::string& path)
    : modality_(modality_of(config.data)), file_(path), size_(file_.bytes()) {
  if (modality_.material == nullptr) return;
  std::vector<uint8_t> file(static_cast<size_t>(file_.bytes()));
  file_.read(0, file);
  material_ = modality_.material(file, path, config.data, [&] { return picture_shape(config); });
  size_ = std::ssize(material_.bytes);
}

std::vector<uint8_t> CompressMaterial::read(int64_t begin, int64_t count) const {
  if (modality_.material != nullptr)
    return {material_.bytes.begin() + begin, material_.bytes.begin() + begin + count};
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  file_.read(begin, bytes);
  return bytes;
}

int CompressMaterial::file_mode() const {
  struct stat status {};
  LONGSTRIDE_CHECK(fstat(file_.descriptor(), &status) == 0, "cannot read {}: {}", file_.path(),
                   last_system_error());
  return static_cast<int>(status.st_mode) & kPermissionBits;
}

void CompressMaterial::describe(CompressedHeader& header) const {
  header.kind = modality_.name;
  const std::string extension = std::filesystem::path(file_.path()).extension().string();
  if (is_plain_extension(extension)) header.extension = extension;
  header.bytes = size_;
  const ImageShape& shape = material_.shape;
  if (modality_.records) header.shape = {shape.height, shape.width, shape.channels};
  header.before = material_.before;
  header.after = material_.after;
}

int64_t write_original(ByteSink& sink, const CompressedFile& file, const FrameDecoder& decode) {
  const CompressedHeader& header = file.header();
  const Modality& modality = *find_modality(header.kind);
  ImageShape shape;
  if (modality.records) shape = {header.shape[0], header.shape[1], header.shape[2]};
  int64_t written = 0;
  const auto put = [&](std::span<const uint8_t> bytes) {
    sink.write(bytes.data(), std::ssize(bytes));
    written += std::ssize(bytes);
  };
  const auto put_text = [&](const std::string& text) {
    sink.write(text);
    written += std::ssize(text);
  };
  std::vector<uint8_t> bytes, record;
  put_text(header.before);
  for (const CompressedFrame& frame : file.frames()) {
    bytes.resize(static_cast<size_t>(frame.bytes));
    decode(frame, bytes);
    if (modality.records)
      record.insert(record.end(), bytes.begin(), bytes.end());
    else
      put(modality.restore(std::move(bytes), shape));
  }
  if (modality.records) put(modality.restore(std::move(record), shape));
  put_text(header.after);
  return written;
}

}  // namespace longstride
