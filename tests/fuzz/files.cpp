// Files that longstride itself writes: weights, compressed files, states of samples, the folder of a run.
#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/toml.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/checkpoint/safetensors.h"
#include "longstride/compress/codec.h"
#include "longstride/compress/container.h"
#include "longstride/compress/frequencies.h"
#include "longstride/compress/material.h"
#include "longstride/compress/range_coder.h"
#include "longstride/report/run_view.h"
#include "longstride/run/run_data.h"
#include "longstride/run/run_directory.h"
#include "longstride/sample/session.h"

#include "tests/data/fixtures.h"
#include "tests/fuzz/target.h"

namespace longstride::fuzz {

namespace {

Playground& playground() {
  static Playground one;
  return one;
}

// Keeps what is written.
class Memory : public ByteSink {
 public:
  using ByteSink::write;
  void write(const void* data, int64_t count) override {
    const auto* begin = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), begin, begin + count);
  }
  Bytes bytes;
};

// JSON of many levels takes the stack of whoever copies it.
constexpr int kDeep = 100'000;
std::string deep(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

// ---- weights ----

std::vector<Bytes> safetensors_seeds() {
  std::array<float, 6> numbers{1, 2, 3, 4, 5, 6};
  std::array<uint8_t, 3> small{1, 2, 3};
  Memory memory;
  write_safetensors(
      memory,
      {{"a.weight", Tensor(numbers.data(), DType::f32, {2, 3})}, {"b", Tensor(small.data(), DType::u8, {3})}},
      {{"format", "pt"}, {"step", "1200"}});
  const auto with_header = [](const std::string& header) {
    Bytes file;
    for (int byte = 0; byte < 8; ++byte) file.push_back(static_cast<uint8_t>(header.size() >> (8 * byte)));
    file.insert(file.end(), header.begin(), header.end());
    file.resize(file.size() + 8);
    return file;
  };
  return {memory.bytes, with_header("{}"),
          with_header(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},"__metadata__":{"x":"y"}})"),
          with_header(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})"),
          with_header("{\"a\":" + deep(kDeep) + "}")};
}

void run_safetensors(std::span<const uint8_t> input) {
  refused_or_done([&] {
    const SafetensorsFile file(playground().put("model.safetensors", input));
    std::vector<NamedTensor> tensors;
    int64_t bytes = 0;
    unsigned sum = 0;
    for (const std::string& name : file.names()) {
      const Tensor tensor = file.find_bytes(name);
      const auto* data = static_cast<const uint8_t*>(tensor.data);
      if (tensor.bytes() > 0) sum += data[0] + data[tensor.bytes() - 1];
      bytes += tensor.bytes();
      tensors.push_back({name, tensor});
    }
    promise(bytes <= std::ssize(input) && sum < std::numeric_limits<unsigned>::max(),
            "tensors lie in the file");
    Memory memory;
    write_safetensors(memory, tensors, file.metadata());
    playground().put("model.safetensors", memory.bytes);
    const SafetensorsFile again(playground().folder() + "/model.safetensors");
    promise(again.names().size() == file.names().size() && again.metadata() == file.metadata(),
            "weights that were read can be written and read again");
  });
}

// ---- compressed files ----

// A model whose weights are all the same; `file` is that of its weights.
void embed(CompressedHeader& header, ModelConfig model, float weight, Bytes& file) {
  FieldList fields;
  fields.section("model");
  model.fields(fields);
  const std::vector<ParameterSpec> table = parameter_table(model);
  const ParameterStore store(table, {}, DType::f32);
  for (size_t i = 0; i < table.size(); ++i) std::fill_n(store[i].as<float>(), table[i].count(), weight);
  Memory memory;
  write_safetensors(memory, store.named(table, ""));
  file = memory.bytes;
  header.model_config = to_toml(fields, false), header.model_weights = file;
}

// An input is the JSON of the header and what follows it, without the checksums, which chance would not find.
std::vector<Bytes> container_seeds() {
  std::vector<Bytes> seeds;
  const auto add = [&](const CompressedHeader& header) {
    Memory memory;
    CompressedWriter writer(memory, header);
    for (int64_t at = 0; at < header.bytes; at += header.frame_bytes)
      writer.add(Bytes(static_cast<size_t>(std::min(header.frame_bytes, header.bytes - at)), 1),
                 Bytes{1, 2, 3});
    writer.finish();
    const auto begin = std::find(memory.bytes.begin(), memory.bytes.end(), '\n') + 1;
    seeds.emplace_back(begin, memory.bytes.end() - 32);
  };
  CompressedHeader header;
  header.kind = "text", header.extension = ".txt", header.bytes = 25, header.model = std::string(32, '0');
  header.precision = "f32", header.device = "cpu", header.probe = std::string(16, '0');
  header.settings = {"compute.device=cpu"};
  header.context = 5, header.streams = 2, header.frame_bytes = 10;
  add(header);
  header.kind = "audio", header.extension = ".wav", header.before = "RIFF", header.after = "end";
  add(header);
  header = {};
  header.kind = "image", header.extension = ".png", header.shape = {2, 2, 3}, header.streams = 1;
  header.bytes = header.context = header.frame_bytes = 12;
  add(header);
  header = {};
  header.kind = "text", header.bytes = header.context = header.frame_bytes = 4, header.streams = 1;
  header.precision = "f32", header.model = std::string(32, '0'), header.probe = std::string(16, '0');
  ModelConfig model;
  model.context = 4, model.layers = 1, model.heads = 1, model.width = 1, model.pattern = "window:2";
  model.position_axes = {4};
  Bytes weights;
  embed(header, model, 0, weights);
  add(header);
  header.portable = IntegerModel::kVersion, header.device = "any";
  add(header);
  model.positions = "rotary", model.qk_width = 4, model.width = 2, model.convolution = 4,
  model.qk_norm = true;
  model.layers = 2, model.value_residual = 0.5;
  for (const float weight : {0.5f, std::numeric_limits<float>::max()}) {
    embed(header, model, weight, weights);
    add(header);
  }
  header.model_config.clear(), header.model_weights = {};
  add(header);
  header.portable = 2;  // of a later version
  add(header);
  std::string nested(text_of(seeds[0]));
  nested.insert(1, "\"shape\":" + deep(kDeep) + ",");
  seeds.push_back(bytes_of(nested));
  return seeds;
}

Bytes with_checksums(std::span<const uint8_t> input) {
  const auto names = [beginning = text_of(input).substr(0, 1024)](std::string_view key) {
    return beginning.find(key) != std::string_view::npos;
  };
  const int version = names("\"portable\"") ? 3 : names("\"model_config\"") ? 2 : 1;
  Bytes file = bytes_of("longstride compressed " + std::to_string(version) + "\n");
  const size_t begin = file.size();
  file.insert(file.end(), input.begin(), input.end());
  const auto line = std::find(file.begin() + static_cast<ptrdiff_t>(begin), file.end(), '\n');
  if (line != file.end()) {
    const nlohmann::json header =
        nlohmann::json::parse(file.begin() + static_cast<ptrdiff_t>(begin), line, nullptr, false);
    size_t at = static_cast<size_t>(line - file.begin()) + 1;
    for (const char* part : {"before", "after", "model_config", "model_weights"})
      if (header.is_object() && header.contains(part) && header[part].is_number_unsigned())
        at += std::min<uint64_t>(header[part].get<uint64_t>(), file.size());
    const auto number = [&](size_t from) {
      uint64_t value = 0;
      for (size_t byte = 8; byte-- > 0;) value = value << 8 | file[from + byte];
      return value;
    };
    while (at + 32 <= file.size() && number(at) != 0) {
      const uint64_t code = number(at + 8);
      if (code > file.size() - at - 32) break;
      const uint64_t sum = frame_checksum(std::span(file).subspan(at + 32, code));
      for (int byte = 0; byte < 8; ++byte)
        file[at + 16 + static_cast<size_t>(byte)] = static_cast<uint8_t>(sum >> (8 * byte));
      at += 32 + code;
    }
  }
  const std::string sum = checksum_of(file.data(), std::ssize(file));
  file.insert(file.end(), sum.begin(), sum.end());
  return file;
}

// The integers of a stranger's weights.
void predict_portably(const LoadedModel& loaded) {
  constexpr int64_t kPositions = 6;
  const ModelConfig& model = loaded.config().model;
  const IntegerModel integers(model, by_role(model, loaded.weights(), {}));
  IntegerDecoder decoder(integers, 2, std::min(kPositions, model.context));
  WindowCoder coder(static_cast<Predictor&>(decoder));
  promise(coder.probe() == coder.probe(), "the same weights predict the same");
}

void run_container(std::span<const uint8_t> input) {
  constexpr int64_t kMostContext = 1 << 16;  // of the model that the file must have been made with
  refused_or_done([&] {
    const CompressedFile file(with_checksums(input), "file.lsc");
    const CompressedHeader& header = file.header();
    promise(header.bytes == 0 || !file.frames().empty(), "bytes lie in frames");
    if (!header.model_config.empty()) {
      ComputeConfig compute;
      compute.device = "cpu", compute.precision = "f32", compute.threads = 1;
      const LoadedModel loaded = load_embedded_model(header, "file.lsc", compute);
      promise(loaded.digest() == embedded_digest(header, "file.lsc"), "a model has one digest");
      if (header.portable > 0) predict_portably(loaded);
      promise(loaded.config().model.context == header.context, "the model and the windows fit");
    }
    if (header.context > kMostContext || header.frame_bytes > kMostContext) return;
    Memory memory;
    write_original(memory, file, [](const CompressedFrame& frame, std::span<uint8_t> bytes) {
      std::copy_n(frame.code.begin(), std::min(frame.code.size(), bytes.size()), bytes.begin());
    });
  });
}

// ---- the code in a compressed file ----

std::vector<Bytes> coder_seeds() { return {data_test::noise(64, 1), Bytes(40, 0), Bytes(40, 0xFF)}; }

// The first byte makes the logits; any bytes can be decoded, and coding what came out gives a code that decodes to it.
void run_coder(std::span<const uint8_t> input) {
  if (input.size() < 2) return;
  std::array<float, 256> logits{};
  uint32_t state = input[0];
  for (float& logit : logits) {
    state = state * 1664525u + 1013904223u;
    logit =
        static_cast<float>(state >> 24) * static_cast<float>(input[0] & 15) - static_cast<float>(input[1]);
  }
  const Frequencies frequencies(logits);
  const auto decode = [&](std::span<const uint8_t> code) {
    RangeDecoder decoder(code);
    Bytes bytes(code.size());
    for (uint8_t& byte : bytes) {
      byte = frequencies.byte_at(decoder.target());
      decoder.consume(frequencies.start(byte), frequencies.of(byte));
    }
    return bytes;
  };
  const Bytes decoded = decode(input);
  RangeEncoder encoder;
  for (const uint8_t byte : decoded) encoder.encode(frequencies.start(byte), frequencies.of(byte));
  Bytes code = encoder.finish();
  code.resize(std::max(code.size(), decoded.size()));
  const Bytes again = decode(code);
  promise(std::equal(decoded.begin(), decoded.end(), again.begin()), "what was coded is decoded");
}

// ---- states of samples ----

std::vector<Bytes> session_seeds() {
  Session session;
  session.model = std::string(32, '0'), session.run = "runs/a", session.step = 7, session.precision = "f32";
  session.kind = "text", session.length = 8, session.output = "out.txt",
  session.settings = {"compute.device=cpu"};
  session.written = {{"out.txt", 5, 6}, {"\xFF", 7, 8}};
  for (uint32_t stream = 0; stream < 2; ++stream)
    session.sequences.push_back(sequence_after(data_test::noise(3, stream), 8, session.sampler, stream));
  const std::string path = playground().folder() + "/state";
  save_session(path, session);
  const Bytes file = data_test::read_file(path);
  std::filesystem::remove(path);
  // Without the first line and the checksum.
  Bytes seed(std::find(file.begin(), file.end(), '\n') + 1, file.end() - 32);
  // Of a name that repeats the last value counts.
  std::string nested(text_of(seed));
  nested.insert(nested.rfind("\"written\"") + 10, deep(kDeep) + ",\"written before\":");
  return {seed, bytes_of(nested)};
}

void run_session(std::span<const uint8_t> input) {
  Bytes file = bytes_of("longstride session 1\n");
  file.insert(file.end(), input.begin(), input.end());
  const std::string sum = checksum_of(file.data(), std::ssize(file));
  file.insert(file.end(), sum.begin(), sum.end());
  refused_or_done([&] {
    const Session session = load_session(playground().put("state", file));
    for (const Sequence& sequence : session.sequences)
      promise(sequence.known() <= std::ssize(input), "bytes of a sample lie in the file");
    branch(session, {.count = 2});
  });
}

// ---- the folder of a run ----

constexpr const char* kMetrics = "metrics.jsonl";
constexpr std::array<const char*, 7> kRunFiles{
    "config.toml", "data.json", "best.json", "commands.jsonl", kMetrics, "checksums.json", "amended.json"};

// A run whose files are replaced one at a time.
class SmallRun {
 public:
  SmallRun() : folder_(playground().folder()), run_(folder_ + "/run") {
    data_test::write_file(folder_ + "/text", data_test::bytes_of(std::string(2000, 'a')));
    config_.data.path = folder_ + "/text";
    config_.model.context = 32;
    config_.model.pattern = "window:8";
    splits_ = open_splits(config_.data, {});
    prepare_run_directory(run_);
    write_run_config(run_, config_);
    record_run_data(run_, config_.data, splits_);
    record_command(run_, {"longstride", "train", "a.toml"});
    data_test::write_file(run_ + "/metrics.jsonl",
                          data_test::bytes_of("{\"step\": 5, \"time\": 1.5, \"train/bits\": 2}\n"));
    std::array<float, 3> numbers{1, 2, 3};
    const std::vector<NamedTensor> tensors{{"a", Tensor(numbers.data(), DType::f32, {3})}};
    step_ = save_checkpoint(run_, 5, {tensors, tensors, {{"step", "5"}}, {}});
    amend_checkpoint(run_, 5, {{"evaluated", "1"}});
    mark_best(run_, 5, 1.5);
    for (const char* name : kRunFiles) contents_.push_back(data_test::read_file(path(name)));
    // Whoever reads it takes a buffer of 4 MiB.
    std::filesystem::remove(path(kMetrics));
  }
  const std::vector<Bytes>& contents() const { return contents_; }

  void read(size_t file, std::span<const uint8_t> content) {
    data_test::write_file(path(kRunFiles[file]), Bytes(content.begin(), content.end()));
    refused_or_done([&] { view_run(run_); });
    refused_or_done([&] { check_run_data(run_, config_.data, splits_); });
    refused_or_done([&] { read_best(run_); });
    refused_or_done([&] { newest_intact(run_); });
    refused_or_done([&] { read_run_config(run_); });
    promise(std::filesystem::exists(step_ + "/model.safetensors"), "reading removes nothing");
    data_test::write_file(path(kRunFiles[file]), contents_[file]);
    if (kRunFiles[file] == kMetrics) std::filesystem::remove(path(kMetrics));
  }

 private:
  std::string path(const std::string& name) const {
    return (name == "checksums.json" || name == "amended.json" ? step_ : run_) + "/" + name;
  }
  std::string folder_, run_, step_;
  RunConfig config_;
  Splits splits_;
  std::vector<Bytes> contents_;
};

SmallRun& small_run() {
  static SmallRun one;
  return one;
}

std::vector<Bytes> run_seeds() {
  std::vector<Bytes> seeds;
  for (size_t file = 0; file < kRunFiles.size(); ++file) {
    for (const Bytes& content : {small_run().contents()[file], bytes_of("{\"parts\":" + deep(kDeep) + "}")}) {
      seeds.push_back({static_cast<uint8_t>(file)});
      seeds.back().insert(seeds.back().end(), content.begin(), content.end());
    }
  }
  return seeds;
}

void run_run(std::span<const uint8_t> input) {
  if (!input.empty()) small_run().read(input[0] % kRunFiles.size(), input.subspan(1));
}

}  // namespace

const Target kSafetensorsTarget{"safetensors", safetensors_seeds, run_safetensors, 4096};
const Target kContainerTarget{"container", container_seeds, run_container, 16384};
const Target kCoderTarget{"coder", coder_seeds, run_coder, 256};
const Target kSessionTarget{"session", session_seeds, run_session, 4096};
const Target kRunTarget{"run", run_seeds, run_run, 4096};

}  // namespace longstride::fuzz
