#include "longstride/checkpoint/safetensors.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// The first eight bytes of a file with a header of this length.
std::string length_bytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 255);
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
  return length_bytes(header.size()) + header + data;
}

// The message of the error with which a file of this header and data is refused.
std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "x.safetensors", bytes);
  const std::string message = message_of<Error>([&] { SafetensorsFile file(folder / "x.safetensors"); });
  EXPECT_THAT(message, HasSubstr(folder / "x.safetensors"));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  return message;
}

// Bytes that follow from the format's description alone.
std::string golden_file() {
  const std::string header = R"({"__metadata__":{"note":"a \"b\""},)"
                             R"("w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                             R"("h":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},)"
                             R"("bytes":{"dtype":"U8","shape":[3],"data_offsets":[10,13]}})";
  std::string padded = header;
  while ((8 + padded.size()) % 64 != 0) padded += ' ';
  // 1.0f, -2.5f, bfloat16 0.5, then 7, 0, 255.
  const unsigned char data[] = {0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x20, 0xc0, 0x00, 0x3f, 7, 0, 255};
  return file_of(padded, std::string(reinterpret_cast<const char*>(data), sizeof data));
}

TEST(Safetensors, WritesTheGoldenBytes) {
  const TemporaryFolder folder;
  float w[] = {1.0f, -2.5f};
  Bf16 h(0.5f);
  uint8_t bytes[] = {7, 0, 255};
  // Narrow elements are given first, but wide ones come first in the file.
  write_safetensors(folder / "golden.safetensors",
                    {{"w", Tensor(w, DType::f32, {2, 1})},
                     {"h", Tensor(&h, DType::bf16, {1})},
                     {"bytes", Tensor(bytes, DType::u8, {3})}},
                    {{"note", "a \"b\""}});
  EXPECT_EQ(read_bytes(folder / "golden.safetensors"), golden_file());
  write_safetensors(folder / "reordered.safetensors",
                    {{"bytes", Tensor(bytes, DType::u8, {3})},
                     {"h", Tensor(&h, DType::bf16, {1})},
                     {"w", Tensor(w, DType::f32, {2, 1})}},
                    {{"note", "a \"b\""}});
  EXPECT_EQ(read_bytes(folder / "reordered.safetensors"), golden_file());
}

TEST(Safetensors, ReadsTheGoldenBytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "golden.safetensors", golden_file());
  const SafetensorsFile file(folder / "golden.safetensors");
  EXPECT_THAT(file.names(), ElementsAre("w", "h", "bytes"));
  EXPECT_EQ(file.metadata(), (Metadata{{"note", "a \"b\""}}));
  EXPECT_EQ(file.find("w").describe(), "f32 (2, 1)");
  EXPECT_EQ(file.find("w").as<float>()[1], -2.5f);
  EXPECT_EQ(static_cast<float>(*file.find("h").as<Bf16>()), 0.5f);
  EXPECT_EQ(file.find("bytes").as<uint8_t>()[2], 255);
  EXPECT_TRUE(file.contains("h"));
  EXPECT_FALSE(file.contains("H"));
  EXPECT_THAT(message_of<Error>([&] { file.find("byte"); }),
              HasSubstr("no tensor 'byte'; did you mean 'bytes'?"));
}

// The time must grow with the number of names, not with its square: 200,000 would take minutes.
TEST(Safetensors, ManyNamesAreReadInNoTime) {
  const TemporaryFolder folder;
  std::string header = "{";
  for (int i = 0; i < 200000; ++i)
    header += (i > 0 ? ",\"z" : "\"z") + std::to_string(i) +
              R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  header += "}";
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  write_bytes(folder / "many", file + header);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(SafetensorsFile(folder / "many").names().size(), 200000u);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 30);
}

TEST(Safetensors, EveryDtypeAndShapeComesBackBitForBit) {
  const TemporaryFolder folder;
  std::mt19937_64 random(1);
  std::vector<NamedTensor> tensors;
  std::vector<std::vector<uint64_t>> storage;
  const std::vector<std::vector<int64_t>> shapes = {{1}, {7}, {0}, {3, 5}, {2, 0, 4}, {2, 3, 1, 5}};
  for (const DType dtype :
       {DType::u8, DType::i8, DType::f64, DType::bf16, DType::i32, DType::f16, DType::f32}) {
    for (const auto& shape : shapes) {
      Tensor tensor;
      tensor.dtype = dtype;
      tensor.rank = static_cast<int>(shape.size());
      int64_t step = 1;
      for (int axis = tensor.rank - 1; axis >= 0; --axis) {
        tensor.shape[axis] = shape[static_cast<size_t>(axis)];
        tensor.stride[axis] = step;
        step *= tensor.shape[axis];
      }
      auto& words = storage.emplace_back(static_cast<size_t>(tensor.bytes() / 8 + 1));
      for (uint64_t& word : words) word = random();  // NaN payloads and denormals included
      tensor.data = words.data();
      tensors.push_back({fmt::format("{}.{}-é-\n\"", name_of(dtype), tensors.size()), tensor});
    }
  }
  write_safetensors(folder / "all.safetensors", tensors);
  const SafetensorsFile file(folder / "all.safetensors");
  EXPECT_EQ(file.names().size(), tensors.size());
  for (const NamedTensor& named : tensors) {
    const Tensor found = file.find(named.name);
    EXPECT_EQ(found.describe(), named.tensor.describe());
    EXPECT_EQ(std::memcmp(found.data, named.tensor.data, static_cast<size_t>(found.bytes())), 0)
        << named.name;
  }
  write_safetensors(folder / "none.safetensors", {});
  EXPECT_TRUE(SafetensorsFile(folder / "none.safetensors").names().empty());
}

TEST(Safetensors, TheWriterRefusesWhatItCannotWrite) {
  const TemporaryFolder folder;
  float w[6] = {};
  const Tensor whole(w, DType::f32, {2, 3});
  const auto message = [&](const std::vector<NamedTensor>& tensors, const Metadata& metadata = {}) {
    return message_of<Error>([&] { write_safetensors(folder / "x", tensors, metadata); });
  };
  EXPECT_THAT(message({{"a", whole}, {"a", whole}}), HasSubstr("two tensors are called 'a'"));
  EXPECT_THAT(message({{"__metadata__", whole}}), HasSubstr("reserved name"));
  EXPECT_THAT(message({{"a", whole.columns(0, 2)}}), HasSubstr("not contiguous"));
  EXPECT_THAT(message({{"a", Tensor(nullptr, DType::f32, {2})}}), HasSubstr("no memory"));
  EXPECT_THAT(message({{"a", Tensor()}}), HasSubstr("tensor 'a'"));
  EXPECT_THAT(message({{"\xff", whole}}), HasSubstr("UTF-8"));
  EXPECT_THAT(message({{"a", whole}}, {{"k", "\xc0"}}), HasSubstr("UTF-8"));
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(Safetensors, BadHeadersAreRefusedWithAReason) {
  const std::string four(4, '\1');
  const auto one = [&](const std::string& description) {
    return file_of("{\"a\":" + description + "}", four);
  };
  EXPECT_THAT(refusal(""), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("7 bytes"));
  EXPECT_THAT(refusal(length_bytes(0)), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal(length_bytes(3) + "{}"), HasSubstr("header would have 3 bytes"));
  EXPECT_THAT(refusal(length_bytes(~uint64_t{0}) + "{}"), HasSubstr("18446744073709551615"));
  EXPECT_THAT(refusal(length_bytes(uint64_t{1} << 63) + "{}"), HasSubstr("header would have"));
  EXPECT_THAT(refusal(file_of("[]", "")), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal(file_of("{", "")), AllOf(HasSubstr("not JSON"), Not(HasSubstr("json.exception"))));
  EXPECT_THAT(refusal(file_of("{} {}", "")), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(file_of("{\"\xff\":1}", "")), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(file_of("{\"a\":" + std::string(5000, '['), "")), HasSubstr("nests deeper"));
  EXPECT_THAT(refusal(file_of("{}", "x")), HasSubstr("end at byte 0 of 1"));
  EXPECT_THAT(refusal(one("7")), HasSubstr("tensor 'a' has not exactly the members"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[1]})")), HasSubstr("has not exactly the members"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})")),
              HasSubstr("has not exactly the members"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F8","shape":[4],"data_offsets":[0,4]})")),
              HasSubstr("has dtype \"F8\""));
  EXPECT_THAT(refusal(one(R"({"dtype":4,"shape":[4],"data_offsets":[0,4]})")), HasSubstr("has dtype 4"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})")), HasSubstr("has shape 1"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})")), HasSubstr("1 to 4 axes"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4]})")),
              HasSubstr("1 to 4 axes"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})")),
              HasSubstr("the extent -1"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})")),
              HasSubstr("the extent 1.0"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]})")),
              HasSubstr("extent"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]})")),
              HasSubstr("extent"));
  // 2^62 elements of 4 bytes are 2^64 bytes, which is 0 in 64 bits.
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]})")),
              HasSubstr("more than any file holds"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})")),
              HasSubstr("more than any file holds"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})")),
              HasSubstr("more than any file holds"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})")),
              HasSubstr("f32 (2) needs 8 bytes"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})")), HasSubstr("[4, 0]"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[4],"data_offsets":[0]})")),
              HasSubstr("not two positions"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[4],"data_offsets":[-4,0]})")),
              HasSubstr("not two positions"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8]})")),
              HasSubstr("4 bytes of data"));
  EXPECT_THAT(
      refusal(one(R"({"dtype":"U8","shape":[4],"data_offsets":[9223372036854775803,9223372036854775807]})")),
      HasSubstr("4 bytes of data"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[3],"data_offsets":[1,4]})")), HasSubstr("leaves a hole"));
  EXPECT_THAT(refusal(one(R"({"dtype":"U8","shape":[3],"data_offsets":[0,3]})")),
              HasSubstr("end at byte 3 of 4"));
  EXPECT_THAT(refusal(file_of("{\"__metadata__\":{\"a\":1}}", "")),
              HasSubstr("__metadata__ 'a' is not a string"));
  EXPECT_THAT(refusal(file_of("{\"__metadata__\":[]}", "")), HasSubstr("__metadata__ is not"));
}

TEST(Safetensors, TwoTensorsMayNeitherOverlapNorShareAName) {
  const std::string data(8, '\2');
  const auto two = [&](const std::string& first, int begin1, int end1, const std::string& second, int begin2,
                       int end2) {
    const auto entry = [](const std::string& name, int begin, int end) {
      return fmt::format(R"("{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", name, end - begin,
                         begin, end);
    };
    return file_of(fmt::format("{{{},{}}}", entry(first, begin1, end1), entry(second, begin2, end2)), data);
  };
  const TemporaryFolder folder;
  write_bytes(folder / "fine", two("b", 4, 8, "a", 0, 4));
  EXPECT_THAT(SafetensorsFile(folder / "fine").names(), ElementsAre("a", "b"));
  EXPECT_THAT(refusal(two("a", 0, 5, "b", 4, 8)), HasSubstr("tensor 'b' overlaps"));
  EXPECT_THAT(refusal(two("a", 0, 8, "b", 0, 8)), HasSubstr("overlaps"));
  EXPECT_THAT(refusal(two("a", 0, 3, "b", 4, 8)), HasSubstr("tensor 'b' leaves a hole"));
  EXPECT_THAT(refusal(two("a", 0, 4, "a", 4, 8)), HasSubstr("the name 'a' repeats"));
  EXPECT_THAT(refusal(two("a\\n", 0, 5, "b\\n", 4, 8)), HasSubstr("tensor 'b?' overlaps"));
}

TEST(Safetensors, ElementsAcrossTheirAddressesAreCopiedButNotViewed) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  std::string padded = header;
  while (padded.size() % 8 != 0) padded += ' ';
  write_bytes(folder / "x", file_of(padded, "\5\0\0\x80\x3f"s));
  const SafetensorsFile file(folder / "x");
  EXPECT_THAT(message_of<Error>([&] { file.find("w"); }), HasSubstr("natural addresses"));
  float w = NAN;
  uint8_t b = 0;
  load_into(file, "", {{"w", Tensor(&w, DType::f32, {1})}, {"b", Tensor(&b, DType::u8, {1})}});
  EXPECT_EQ(w, 1.0f);
  EXPECT_EQ(b, 5);
}

TEST(Safetensors, TruncatedOrFlippedFilesNeverCrash) {
  const TemporaryFolder folder;
  const std::string path = folder / "x.safetensors", sound = golden_file();
  const auto open_and_read = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    try {
      const SafetensorsFile file(path);
      unsigned sum = 0;
      for (const std::string& name : file.names()) {
        const Tensor tensor = file.find_bytes(name);
        for (int64_t i = 0; i < tensor.bytes(); ++i) sum += static_cast<const unsigned char*>(tensor.data)[i];
      }
      return sum > 0;
    } catch (const Error&) {
      return false;
    }
  };
  ASSERT_TRUE(open_and_read(sound));
  for (size_t length = 0; length < sound.size(); ++length)
    EXPECT_FALSE(open_and_read(sound.substr(0, length))) << length;
  for (size_t bit = 0; bit < sound.size() * 8; ++bit) {
    std::string flipped = sound;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    open_and_read(flipped);
  }
  std::mt19937 random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string damaged = sound;
    for (int i = 0; i < 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    open_and_read(damaged);
  }
}

TEST(Safetensors, LoadIntoNeedsTheSameTensorsAndTouchesNothingOtherwise) {
  const TemporaryFolder folder;
  float w[] = {1, 2, 3, 4, 5, 6}, b[] = {7, 8};
  write_safetensors(folder / "x", {{"m.w", Tensor(w, DType::f32, {2, 3})},
                                   {"m.b", Tensor(b, DType::f32, {2})},
                                   {"v.w", Tensor(w, DType::f32, {6})}});
  const SafetensorsFile file(folder / "x");
  float to_w[6], to_b[2];
  double to_double[2];
  const auto poison = [&] {
    std::fill(std::begin(to_w), std::end(to_w), NAN);
    std::fill(std::begin(to_b), std::end(to_b), NAN);
  };
  const NamedTensor target_w{"w", Tensor(to_w, DType::f32, {2, 3})},
      target_b{"b", Tensor(to_b, DType::f32, {2})};
  const auto message = [&](const std::vector<NamedTensor>& targets) {
    poison();
    const std::string text = message_of<Error>([&] { load_into(file, "m.", targets); });
    for (const float x : to_w) EXPECT_TRUE(std::isnan(x)) << text;
    EXPECT_THAT(text, HasSubstr("another architecture"));
    EXPECT_THAT(text, HasSubstr(file.path()));
    return text;
  };
  poison();
  load_into(file, "m.", {target_b, target_w});
  EXPECT_THAT(to_w, ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(to_b, ElementsAre(7, 8));
  EXPECT_THAT(message({target_w}), HasSubstr("a tensor 'm.b', f32 (2), too many"));
  EXPECT_THAT(message({target_w, target_b, {"c", target_b.tensor}}),
              HasSubstr("no tensor 'm.c', f32 (2) expected"));
  EXPECT_THAT(message({{"w", Tensor(to_w, DType::f32, {3, 2})}, target_b}),
              HasSubstr("'m.w' is f32 (2, 3) in the file, f32 (3, 2) expected"));
  EXPECT_THAT(message({{"w", Tensor(to_w, DType::f32, {6})}, target_b}), HasSubstr("f32 (6) expected"));
  EXPECT_THAT(message({target_w, {"b", Tensor(to_double, DType::f64, {2})}}),
              HasSubstr("'m.b' is f32 (2) in the file, f64 (2) expected"));
}

}  // namespace
}  // namespace longstride
