// Files of named tensors in the safetensors format (https://huggingface.co/docs/safetensors). They begin
// with eight bytes, the length of the header as a little-endian number. The header is JSON: {"name":
// {"dtype", "shape", "data_offsets": [begin, end]}, ...}, and "__metadata__", strings by name. The elements
// follow, little-endian and without gaps.
#pragma once

#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "longstride/base/atomic_file.h"
#include "longstride/base/mapped_file.h"
#include "longstride/base/tensor.h"

namespace longstride {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

using Metadata = std::map<std::string, std::string>;

// Writes contiguous tensors of 1 to kMaxRank axes, on any device. Wide elements come first, so that every
// tensor begins at a multiple of its element size, and the first at a multiple of 64 bytes. Tensors of equal
// element size keep the given order. Equal input gives equal bytes. Throws Error for names that repeat, are
// reserved or are not UTF-8, and for the system's errors.
void write_safetensors(ByteSink& sink, const std::vector<NamedTensor>& tensors,
                       const Metadata& metadata = {});
// The same into a file that appears whole or not at all.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const Metadata& metadata = {});

// A file of named tensors, mapped into memory. Its tensors are views: they live as long as this object, and
// writing to them ends the process. The whole header is checked before any tensor is handed out.
class SafetensorsFile {
 public:
  // Throws Error naming the file, the tensor and what is wrong with it.
  explicit SafetensorsFile(std::string path);
  explicit SafetensorsFile(MappedFile file);
  // The content of such a file, which must outlive this object; `name` stands for its path in messages.
  SafetensorsFile(std::span<const uint8_t> content, std::string name);

  const std::string& path() const { return path_; }
  std::span<const uint8_t> content() const { return content_; }  // all of the file
  const Metadata& metadata() const { return metadata_; }
  const std::vector<std::string>& names() const { return names_; }  // in the order of the data
  bool contains(const std::string& name) const { return index_.contains(name); }

  // Throws Error for an unknown name, and for a tensor whose address does not suit its element type (files
  // of longstride have none).
  Tensor find(const std::string& name) const;
  // The same for any address, for copying bytes only.
  Tensor find_bytes(const std::string& name) const;

 private:
  void read_header();

  MappedFile file_;  // empty if the content is the caller's
  std::string path_;
  std::span<const uint8_t> content_;
  Metadata metadata_;
  std::vector<std::string> names_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// Copies tensors of the file into `targets`, on any device: target t takes the tensor that the file calls
// `prefix` + t.name. The file must have every target with equal shape and dtype, and every tensor of the
// file whose name begins with `prefix` must have its target. Throws Error naming the tensor and both shapes
// before anything has been copied.
void load_into(const SafetensorsFile& file, const std::string& prefix,
               const std::vector<NamedTensor>& targets);

}  // namespace longstride
