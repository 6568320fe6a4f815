// Writing of safetensors files.
#include <algorithm>
#include <bit>
#include <set>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "longstride/base/text.h"
#include "longstride/checkpoint/safetensors.h"
#include "longstride/device/memory.h"

namespace longstride {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr int64_t kDataAlignment = 64;

std::string_view format_name(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "F64";
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f16:
      return "F16";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
    case DType::i8:
      return "I8";
  }
  fail("dtype {} has no name in safetensors", static_cast<int>(dtype));
}

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail("a name or text for a safetensors file is not UTF-8");
  }
}

void check_tensor(const NamedTensor& named) {
  const Tensor& tensor = named.tensor;
  LONGSTRIDE_CHECK(named.name != "__metadata__", "a tensor cannot have the reserved name __metadata__");
  LONGSTRIDE_CHECK(tensor.rank >= 1 && tensor.contiguous(),
                   "tensor '{}', {}, cannot be written: not contiguous", named.name, tensor.describe());
  LONGSTRIDE_CHECK(tensor.data != nullptr || tensor.count() == 0,
                   "tensor '{}', {}, cannot be written: no memory", named.name, tensor.describe());
}

std::string render_header(const std::vector<const NamedTensor*>& ordered, const Metadata& metadata) {
  std::vector<std::string> members;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) pairs.push_back(json_string(key) + ":" + json_string(value));
    members.push_back(fmt::format("\"__metadata__\":{{{}}}", fmt::join(pairs, ",")));
  }
  int64_t offset = 0;
  for (const NamedTensor* named : ordered) {
    const Tensor& tensor = named->tensor;
    const std::string shape =
        fmt::format("{}", fmt::join(tensor.shape.begin(), tensor.shape.begin() + tensor.rank, ","));
    members.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_string(named->name), format_name(tensor.dtype), shape, offset,
                                  offset + tensor.bytes()));
    offset += tensor.bytes();
  }
  std::string header = fmt::format("{{{}}}", fmt::join(members, ","));
  const auto length = static_cast<int64_t>(header.size()) + 8;
  header.append(static_cast<size_t>((kDataAlignment - length % kDataAlignment) % kDataAlignment), ' ');
  return header;
}

void write_elements(ByteSink& sink, const Tensor& tensor) {
  if (tensor.device == DeviceKind::cpu) return sink.write(tensor.data, tensor.bytes());
  const Buffer staging(Device{}, tensor.bytes());
  Tensor on_cpu = tensor;
  on_cpu.device = DeviceKind::cpu;
  on_cpu.data = staging.data();
  copy(tensor, on_cpu);
  sink.write(on_cpu.data, on_cpu.bytes());
}

}  // namespace

void write_safetensors(ByteSink& sink, const std::vector<NamedTensor>& tensors, const Metadata& metadata) {
  std::vector<const NamedTensor*> ordered;
  std::set<std::string_view> names;
  for (const NamedTensor& named : tensors) {
    check_tensor(named);
    LONGSTRIDE_CHECK(names.insert(named.name).second, "two tensors are called '{}'", named.name);
    ordered.push_back(&named);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->tensor.dtype) > size_of(b->tensor.dtype);
  });
  const std::string header = render_header(ordered, metadata);
  const uint64_t length = header.size();
  sink.write(&length, sizeof length);
  sink.write(header);
  for (const NamedTensor* named : ordered) write_elements(sink, named->tensor);
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const Metadata& metadata) {
  write_file_atomically(path, [&](ByteSink& sink) { write_safetensors(sink, tensors, metadata); });
}

}  // namespace longstride
