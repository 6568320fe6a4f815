#include "longstride/data/image.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/data/looks.h"
#include "longstride/data/modalities/image.h"
#include "longstride/data/picture.h"
#include "longstride/data/skipped_files.h"

namespace longstride::data {

namespace {

constexpr std::array<std::string_view, 5> kNeverEmpty{"png", "jpg", "jpeg", "bin", "npy"};
constexpr int64_t kCifarSide = 32;
constexpr int64_t kCifarPlane = kCifarSide * kCifarSide;
constexpr int64_t kCifarRecord = 1 + 3 * kCifarPlane;
static_assert(kCifarRecord == kCifarRecordBytes);
constexpr size_t kCifarRecordsSeen = 16;
constexpr int64_t kPictureFileLimit = int64_t{1} << 30;
constexpr const char* kAdvice = "it is damaged or cut off; fetch or make it again";

std::string name_of(const ImageShape& shape) {
  return fmt::format("{} x {} x {}", shape.height, shape.width, shape.channels);
}

// The one shape of all pictures: from the configuration, or from the first picture.
class ShapeRule {
 public:
  explicit ShapeRule(const ImageShape& wanted) : wanted_(wanted) {}

  // For arrays, whose channels are not converted.
  void expect(const std::string& label, const ImageShape& found) {
    if (first_.empty()) {
      LONGSTRIDE_CHECK(found.bytes() > 0, "{} holds pictures of {}: nothing", label, name_of(found));
      ImageShape& w = wanted_;
      const ImageShape filled{w.height == 0 ? found.height : w.height, w.width == 0 ? found.width : w.width,
                              w.channels == 0 ? found.channels : w.channels};
      reason_ = wanted_.height + wanted_.width + wanted_.channels == 0
                    ? fmt::format("as in {}, the first", label)
                    : "as data.image_height, data.image_width and data.image_channels ask";
      wanted_ = filled;
      first_ = label;
    }
    LONGSTRIDE_CHECK(found == wanted_,
                     "{} is {} (height x width x channels), expected {} {}; resize it, or leave it out",
                     label, name_of(found), name_of(wanted_), reason_);
  }

  // For PNG and JPEG, which can be converted; returns the channels to convert to.
  int64_t expect_picture(const std::string& label, const ImageShape& native) {
    LONGSTRIDE_CHECK(wanted_.channels == 0 || wanted_.channels == 1 || wanted_.channels == 3,
                     "{}: PNG and JPEG pictures give 1 or 3 channels, not data.image_channels = {}", label,
                     wanted_.channels);
    LONGSTRIDE_CHECK(!grey_by_first_ || native.channels == 1,
                     "{} has colour, but {}, the first, is grey; set data.image_channels to 3 or 1", label,
                     first_);
    if (wanted_.channels == 0) grey_by_first_ = native.channels == 1;
    // A grey picture among colour pictures is converted in any case.
    converts_ = converts_ || (wanted_.channels == 1 && native.channels != 1) ||
                (wanted_.channels == 3 && native.channels == 1 && first_.empty());
    ImageShape converted = native;
    if (wanted_.channels != 0) converted.channels = wanted_.channels;
    expect(label, converted);
    return wanted_.channels;
  }

  const ImageShape& shape() const { return wanted_; }
  bool found_any() const { return !first_.empty(); }
  bool converts() const { return converts_; }

 private:
  ImageShape wanted_;
  std::string first_, reason_;
  bool grey_by_first_ = false, converts_ = false;
};

// CIFAR-10 binary: a label, then a red, a green and a blue plane of 32 x 32.
void decode_cifar(Item& item, ShapeRule& rule, const DecodeSink& sink) {
  std::vector<uint8_t> record(kCifarRecord), pixels(kCifarRecord - 1);
  for (int64_t number = 0;; ++number) {
    const size_t count = item.read(record);
    if (count == 0 && number > 0) return;
    LONGSTRIDE_CHECK(
        count == record.size(),
        "{}: record {} has {} bytes, not the {} of a CIFAR-10 binary batch; {}, or it is something else",
        item.label(), number, count, record.size(), kAdvice);
    LONGSTRIDE_CHECK(
        record[0] <= 9,
        "{}: record {} has the label {}, CIFAR-10 has labels 0 to 9; only CIFAR-10 binary batches are "
        "read from .bin files",
        item.label(), number, record[0]);
    if (number == 0) rule.expect(item.label(), {kCifarSide, kCifarSide, 3});
    for (int64_t i = 0; i < kCifarPlane; ++i)
      for (int64_t channel = 0; channel < 3; ++channel)
        pixels[static_cast<size_t>(3 * i + channel)] =
            record[static_cast<size_t>(1 + channel * kCifarPlane + i)];
    sink(pixels);
  }
}

// Copies exactly `count` bytes of pixels; nothing may follow them.
void copy_pixels(Item& item, int64_t count, const DecodeSink& sink) {
  std::vector<uint8_t> block(1 << 20);
  for (int64_t left = count; left > 0;) {
    const size_t got = item.read(std::span(block).first(
        static_cast<size_t>(std::min<int64_t>(left, static_cast<int64_t>(block.size())))));
    LONGSTRIDE_CHECK(got > 0, "{}: {} of {} bytes of pixels are missing; {}", item.label(), left, count,
                     kAdvice);
    sink(std::span(block).first(got));
    left -= static_cast<int64_t>(got);
  }
  LONGSTRIDE_CHECK(item.peek(1).empty(), "{} goes on after the {} bytes of pixels that its header tells; {}",
                   item.label(), count, kAdvice);
}

int64_t checked_bytes(const std::string& label, int64_t pictures, const ImageShape& shape) {
  int64_t size = 0;
  constexpr int64_t most = int64_t{1} << 20;
  const bool overflow =
      pictures <= 0 || shape.height <= 0 || shape.width <= 0 || shape.channels <= 0 || shape.height > most ||
      shape.width > most || __builtin_mul_overflow(shape.height, shape.width, &size) ||
      __builtin_mul_overflow(size, shape.channels, &size) || __builtin_mul_overflow(size, pictures, &size);
  LONGSTRIDE_CHECK(!overflow && size > 0, "{} claims {} pictures of {}; {}", label, pictures, name_of(shape),
                   kAdvice);
  return size;
}

// IDX: two zero bytes, the type (8 = bytes), the number of axes, their sizes as big-endian 32-bit words, the
// data.
void decode_idx(Item& item, ShapeRule& rule, const DecodeSink& sink) {
  std::vector<uint8_t> header(4);
  item.read(header);
  const int axes = header[3];  // decode_item lets only 3 and 4 through; files of labels have 1
  header.resize(static_cast<size_t>(4 * axes));
  LONGSTRIDE_CHECK(item.read(header) == header.size(), "{}: the header ends early; {}", item.label(),
                   kAdvice);
  std::vector<int64_t> sizes;
  for (size_t at = 0; at < header.size(); at += 4)
    sizes.push_back(int64_t{header[at]} << 24 | header[at + 1] << 16 | header[at + 2] << 8 | header[at + 3]);
  const ImageShape shape{sizes[1], sizes[2], axes == 4 ? sizes[3] : 1};
  const int64_t bytes = checked_bytes(item.label(), sizes[0], shape);
  rule.expect(item.label(), shape);
  copy_pixels(item, bytes, sink);
}

// The value of a key in the header of an NPY file, a Python dictionary: 'shape': (2, 4, 4, 3), -> (2, 4, 4, 3
std::string_view npy_value(const std::string& label, std::string_view header, std::string_view key) {
  const size_t at = header.find(fmt::format("'{}':", key));
  LONGSTRIDE_CHECK(at != std::string_view::npos, "{}: no '{}' in the NPY header; {}", label, key, kAdvice);
  const std::string_view value = trim(header.substr(at + key.size() + 3));
  return value.substr(0, value.find_first_of(value.starts_with('(') ? ")" : ",}"));
}

// False for arrays of one or two axes beside other files, since those are labels.
bool decode_npy(Item& item, bool alone, ShapeRule& rule, const DecodeSink& sink) {
  std::vector<uint8_t> start(10);
  LONGSTRIDE_CHECK(item.read(start) == start.size(), "{}: the header ends early; {}", item.label(), kAdvice);
  size_t length = start[8] | size_t{start[9]} << 8;
  if (start[6] >= 2) {
    std::vector<uint8_t> more(2);
    item.read(more);
    length |= size_t{more[0]} << 16 | size_t{more[1]} << 24;
  }
  LONGSTRIDE_CHECK(length < 65536, "{}: an NPY header of {} bytes; {}", item.label(), length, kAdvice);
  std::vector<uint8_t> bytes(length);
  LONGSTRIDE_CHECK(item.read(bytes) == length, "{}: the header ends early; {}", item.label(), kAdvice);
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()), length);
  std::vector<int64_t> sizes;
  const std::string_view axes = npy_value(item.label(), header, "shape");
  LONGSTRIDE_CHECK(axes.starts_with('('), "{}: no shape in the NPY header; {}", item.label(), kAdvice);
  for (const std::string& part : split(axes.substr(1), ','))
    if (!trim(part).empty()) sizes.push_back(parse_integer(part, item.label() + ": the shape"));
  if (sizes.size() < 3 && !alone) return false;
  const std::string_view type = npy_value(item.label(), header, "descr");
  LONGSTRIDE_CHECK(type.ends_with("u1'"),
                   "{} holds {}; pictures are arrays of uint8: save it with .astype('uint8')", item.label(),
                   type);
  LONGSTRIDE_CHECK(npy_value(item.label(), header, "fortran_order") == "False",
                   "{} is in Fortran order; save numpy.ascontiguousarray of it", item.label());
  LONGSTRIDE_CHECK(
      sizes.size() == 3 || sizes.size() == 4,
      "{} has {} axes; pictures have 4 (number, height, width, channel) or 3 (number, height, width)",
      item.label(), sizes.size());
  const ImageShape shape{sizes[1], sizes[2], sizes.size() == 4 ? sizes[3] : 1};
  LONGSTRIDE_CHECK(shape.channels <= 4,
                   "{} has the shape ({}, {}, {}, {}), but the channels, 1 to 4, come last; save "
                   ".transpose(0, 2, 3, 1) of it if they come second",
                   item.label(), sizes[0], shape.height, shape.width, shape.channels);
  const int64_t count = checked_bytes(item.label(), sizes[0], shape);
  rule.expect(item.label(), shape);
  copy_pixels(item, count, sink);
  return true;
}

// False if the item is not a picture of any kind.
bool decode_item(Item& item, bool alone, ShapeRule& rule, const DecodeSink& sink) {
  const std::string& extension = item.extension();
  const std::span<const uint8_t> head = item.peek(8);
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  using std::string_view_literals::operator""sv;
  if (extension == "bin") {
    // Weights and programs also have such names. Beside pictures they count as other files.
    const bool is_cifar = begins_like_cifar(item.peek(kCifarRecordsSeen * kCifarRecordBytes));
    if (!is_cifar && !alone) return false;
    LONGSTRIDE_CHECK(
        is_cifar,
        "{} is no CIFAR-10 binary batch, which .bin files are read as: its records of {} bytes do "
        "not begin with labels from 0 to 9{}",
        item.label(), kCifarRecord, look_hint(item));
    decode_cifar(item, rule, sink);
  } else if (begins_like_picture(head) || extension == "png" || extension == "jpg" || extension == "jpeg") {
    std::vector<uint8_t> pixels;
    decode_picture(
        item.read_rest(kPictureFileLimit), item.label(),
        [&](const ImageShape& native) { return rule.expect_picture(item.label(), native); }, pixels);
    sink(pixels);
  } else if (text.starts_with("\x93NUMPY")) {
    return decode_npy(item, alone, rule, sink);
  } else if (text.starts_with("\0\0\x08"sv) && head.size() >= 4 && (head[3] == 3 || head[3] == 4)) {
    decode_idx(item, rule, sink);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Decoded decode_images(const std::vector<SourceFile>& files, const ImageShape& wanted, const DecodeSink& sink,
                      const ItemMark& mark) {
  ShapeRule rule(wanted);
  SkippedFiles skipped;
  std::string hint;  // what the first of them looks like
  const std::string remark = visit_items(
      files,
      [&](Item& item) {
        mark(item.key());
        const bool alone = files.size() == 1 && item.label() == files[0].path;
        if (decode_item(item, alone, rule, sink)) return;
        if (hint.empty()) hint = look_hint(item);
        skipped.add(item);
      },
      kNeverEmpty);
  constexpr const char* kinds = "PNG, JPEG, CIFAR-10 .bin, IDX and .npy are read (see docs/data.md)";
  LONGSTRIDE_CHECK(rule.found_any() || skipped.count() > 0,
                   "{} holds no picture: what is in it is empty or hidden",
                   files.size() == 1 ? files[0].path : std::string("data.path"));
  if (!rule.found_any() && skipped.count() == 1)
    fail("{} is no picture: {}; for other files set data.kind to {}{}", skipped.first(), kinds,
         kinds_beside(kImage), hint);
  LONGSTRIDE_CHECK(rule.found_any(), "no picture among the {} files of data.path ({}, ...): {}{}",
                   skipped.count(), skipped.first(), kinds, hint);
  return {rule.shape(), join_remarks({skipped.remark(), remark}), rule.converts() ? size_t{1} : size_t{0}};
}

}  // namespace longstride::data
