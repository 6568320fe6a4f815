// Reads safetensors files. A file may come from anywhere, so nothing in its header is used before it is
// checked.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "longstride/base/text.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/checkpoint/safetensors.h"
#include "longstride/device/memory.h"

namespace longstride {

namespace {

using nlohmann::json;

constexpr int64_t kLongestHeader = 100'000'000;  // as in the format's own library
constexpr int kDeepestNesting = 8;               // {name: {shape: [..]}} needs three

constexpr std::array<std::pair<std::string_view, DType>, 7> kFormatNames{{{"F64", DType::f64},
                                                                          {"F32", DType::f32},
                                                                          {"BF16", DType::bf16},
                                                                          {"F16", DType::f16},
                                                                          {"I32", DType::i32},
                                                                          {"U8", DType::u8},
                                                                          {"I8", DType::i8}}};

// A name from the file, made fit for a one-line message.
std::string printable(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 200)) text += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return name.size() > 200 ? text + "..." : text;
}

// Where in the file an error is: the file and, once known, the tensor.
struct Place {
  const std::string& path;
  std::string tensor;

  template <class... Args>
  void check(bool condition, fmt::format_string<Args...> format, Args&&... args) const {
    if (condition) return;
    const std::string what = fmt::format(format, std::forward<Args>(args)...);
    if (tensor.empty()) fail("{} is not a sound safetensors file: {}", path, what);
    fail("{} is not a sound safetensors file: tensor '{}' {}", path, tensor, what);
  }
};

// Builds the header's JSON from the parser's events. Refuses deep nesting, and names that repeat within an
// object; the parser alone would keep the last one. The parser's own callback would walk each object again
// at the end of every member.
class HeaderBuilder : public nlohmann::json_sax<json> {
 public:
  explicit HeaderBuilder(const Place& place) : place_(place) {}
  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    place_.check(!open_.back()->contains(name), "the name '{}' repeats in its header", printable(name));
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    place_.check(false, "its header is not JSON ({})", printable(reason_of(error)));
    return false;
  }

 private:
  json& put(json value) {
    if (open_.empty()) return root_ = std::move(value);
    json& parent = *open_.back();
    if (parent.is_object()) return parent[key_] = std::move(value);
    return parent.emplace_back(std::move(value));
  }
  bool add(json value) { return put(std::move(value)), true; }
  bool open(json value) {
    place_.check(open_.size() < kDeepestNesting, "its header nests deeper than the format allows");
    json& opened = put(std::move(value));
    return open_.push_back(&opened), true;
  }
  bool close() { return open_.pop_back(), true; }

  const Place& place_;
  json root_;
  std::vector<json*> open_;  // members are added only to the last one, so that the others do not move
  std::string key_;
};

json parse_header(std::string_view text, const Place& place) {
  HeaderBuilder builder(place);
  json::sax_parse(text.begin(), text.end(), &builder);
  json header = builder.take();
  place.check(header.is_object(), "its header is not a JSON object");
  return header;
}

Metadata parse_metadata(const json& object, const Place& place) {
  place.check(object.is_object(), "__metadata__ is not a JSON object");
  Metadata metadata;
  for (const auto& [key, value] : object.items()) {
    place.check(value.is_string(), "__metadata__ '{}' is not a string", printable(key));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

bool is_int64(const json& value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

// One tensor as the header describes it; [begin, end) counts from the start of the data.
struct Entry {
  std::string name;
  Tensor tensor;
  int64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& name, const json& object, const Place& place) {
  place.check(object.is_object() && object.size() == 3 && object.contains("dtype") &&
                  object.contains("shape") && object.contains("data_offsets"),
              "has not exactly the members dtype, shape and data_offsets");
  Entry entry;
  entry.name = name;
  const json& dtype = object["dtype"];
  const auto known = std::find_if(kFormatNames.begin(), kFormatNames.end(),
                                  [&](const auto& row) { return dtype.is_string() && dtype == row.first; });
  place.check(known != kFormatNames.end(), "has dtype {}; known are F64, F32, BF16, F16, I32, U8",
              printable(dtype.dump()));
  entry.tensor.dtype = known->second;

  const json& shape = object["shape"];
  place.check(shape.is_array() && shape.size() >= 1 && shape.size() <= kMaxRank,
              "has shape {}; longstride reads 1 to {} axes", printable(shape.dump()), kMaxRank);
  entry.tensor.rank = static_cast<int>(shape.size());
  // Extents of zero count as one here, so that no stride overflows either.
  int64_t span = size_of(known->second);
  for (int axis = entry.tensor.rank - 1; axis >= 0; --axis) {
    const json& extent = shape[static_cast<size_t>(axis)];
    place.check(is_int64(extent), "has the extent {} in its shape", printable(extent.dump()));
    entry.tensor.shape[axis] = extent.get<int64_t>();
    place.check(!__builtin_mul_overflow(span, std::max<int64_t>(1, entry.tensor.shape[axis]), &span),
                "has shape {}, more than any file holds", printable(shape.dump()));
  }
  int64_t step = 1;
  for (int axis = entry.tensor.rank - 1; axis >= 0; --axis) {
    entry.tensor.stride[axis] = step;
    step *= entry.tensor.shape[axis];
  }

  const json& offsets = object["data_offsets"];
  place.check(offsets.is_array() && offsets.size() == 2 && is_int64(offsets[0]) && is_int64(offsets[1]),
              "has data_offsets {}, not two positions", printable(offsets.dump()));
  entry.begin = offsets[0].get<int64_t>();
  entry.end = offsets[1].get<int64_t>();
  place.check(entry.begin <= entry.end && entry.end - entry.begin == entry.tensor.bytes(),
              "has data_offsets [{}, {}], but {} needs {} bytes", entry.begin, entry.end,
              entry.tensor.describe(), entry.tensor.bytes());
  return entry;
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::string path) : SafetensorsFile(MappedFile(std::move(path))) {}

SafetensorsFile::SafetensorsFile(MappedFile file)
    : file_(std::move(file)), path_(file_.path()), content_(file_.span()) {
  read_header();
}

SafetensorsFile::SafetensorsFile(std::span<const uint8_t> content, std::string name)
    : path_(std::move(name)), content_(content) {
  read_header();
}

void SafetensorsFile::read_header() {
  const Place place{path_, ""};
  const auto* start = reinterpret_cast<const std::byte*>(content_.data());
  const int64_t bytes = std::ssize(content_);
  uint64_t length = 0;
  place.check(bytes >= 8, "it has {} bytes, too few for a header", bytes);
  std::memcpy(&length, start, sizeof length);
  place.check(length <= static_cast<uint64_t>(std::min(kLongestHeader, bytes - 8)),
              "its header would have {} bytes, the file has {}", length, bytes);
  const std::string_view text(reinterpret_cast<const char*>(start) + 8, length);
  place.check(text.starts_with('{'), "its header does not begin with '{{'");
  const json header = parse_header(text, place);

  std::vector<Entry> entries;
  for (const auto& [name, object] : header.items()) {
    if (name == "__metadata__")
      metadata_ = parse_metadata(object, place);
    else
      entries.push_back(parse_entry(name, object, Place{path_, printable(name)}));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });

  const std::byte* data = start + 8 + length;
  const int64_t data_bytes = bytes - 8 - static_cast<int64_t>(length);
  int64_t position = 0;
  for (Entry& entry : entries) {
    const Place tensor_place{path_, printable(entry.name)};
    tensor_place.check(entry.end <= data_bytes, "has data_offsets [{}, {}], the file has {} bytes of data",
                       entry.begin, entry.end, data_bytes);
    tensor_place.check(entry.begin >= position,
                       "overlaps the tensor before it: it begins at {}, that one ends at {}", entry.begin,
                       position);
    tensor_place.check(entry.begin == position,
                       "leaves a hole before it: it begins at {}, the data before ends at {}", entry.begin,
                       position);
    position = entry.end;
    // A Tensor has no read-only form. It is part of this class's contract that its elements are not written.
    entry.tensor.data = const_cast<std::byte*>(data + entry.begin);
    index_[entry.name] = tensors_.size();
    tensors_.push_back(entry.tensor);
    names_.push_back(std::move(entry.name));
  }
  place.check(position == data_bytes, "its tensors end at byte {} of {} bytes of data", position, data_bytes);
}

Tensor SafetensorsFile::find_bytes(const std::string& name) const {
  const auto found = index_.find(name);
  if (found != index_.end()) return tensors_[found->second];
  const std::string similar = nearest(name, names_);
  fail("{} has no tensor '{}'{}", path(), name,
       similar.empty() ? "" : fmt::format("; did you mean '{}'?", similar));
}

Tensor SafetensorsFile::find(const std::string& name) const {
  const Tensor tensor = find_bytes(name);
  LONGSTRIDE_CHECK(
      reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(size_of(tensor.dtype)) == 0,
      "{}: the elements of tensor '{}' lie across their natural addresses; write the file anew with the "
      "safetensors package",
      path(), printable(name));
  return tensor;
}

void load_into(const SafetensorsFile& file, const std::string& prefix,
               const std::vector<NamedTensor>& targets) {
  constexpr std::string_view kAdvice =
      "the file belongs to another architecture; compare its config with this one";
  std::set<std::string> expected;
  for (const NamedTensor& target : targets) {
    const std::string name = prefix + target.name;
    LONGSTRIDE_CHECK(file.contains(name), "{} has no tensor '{}', {} expected: {}", file.path(), name,
                     target.tensor.describe(), kAdvice);
    const Tensor source = file.find_bytes(name);
    LONGSTRIDE_CHECK(source.dtype == target.tensor.dtype && source.rank == target.tensor.rank &&
                         source.shape == target.tensor.shape,
                     "{}: tensor '{}' is {} in the file, {} expected: {}", file.path(), name,
                     source.describe(), target.tensor.describe(), kAdvice);
    LONGSTRIDE_CHECK(
        target.tensor.contiguous() && (target.tensor.data != nullptr || target.tensor.count() == 0),
        "tensor '{}', {}, has no contiguous memory to load into", name, target.tensor.describe());
    expected.insert(name);
  }
  for (const std::string& name : file.names())
    LONGSTRIDE_CHECK(!name.starts_with(prefix) || expected.contains(name),
                     "{} has a tensor '{}', {}, too many: {}", file.path(), printable(name),
                     file.find_bytes(name).describe(), kAdvice);
  for (const NamedTensor& target : targets) copy(file.find_bytes(prefix + target.name), target.tensor);
}

}  // namespace longstride
