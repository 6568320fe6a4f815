#include "longstride/compress/codec.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/describe_device.h"
#include "longstride/run/gpu_room.h"
#include "longstride/sample/generate.h"

namespace longstride {

namespace {

constexpr int64_t kMostOnGpu = 64, kMostOnCpu = 16;  // windows side by side
constexpr int64_t kFrameBytes = int64_t{1} << 20;    // at least, so that frames cost next to nothing

// Of a portable file: nothing that differs from one machine to another.
constexpr const char* kAnyDevice = "any";

// What the integers take, and the parameters that they are made of do not.
int64_t portable_bytes(const ModelConfig& model, const DecoderOptions& options) {
  return IntegerModel::bytes(model) + IntegerDecoder::bytes(model, options.streams, options.positions);
}

void check_portable(const LoadedModel& loaded) {
  LONGSTRIDE_CHECK(loaded.device().kind == DeviceKind::cpu,
                   "portable files are coded on the CPU; load the model there, with device cpu");
  LONGSTRIDE_CHECK(loaded.quantized() == nullptr,
                   "portable files have weights in eight bits of their own; load the model without int8");
  IntegerModel::check(loaded.config().model);
}

// Windows side by side: few rounds, none of them with much fewer than the others.
int64_t choose_streams(const LoadedModel& loaded, DecoderOptions options, int64_t size,
                       const CodingOptions& coding) {
  const ModelConfig& model = loaded.config().model;
  const bool cpu = loaded.device().kind == DeviceKind::cpu;
  const int64_t most = cpu ? kMostOnCpu : kMostOnGpu;
  const int64_t room = std::min(coding.most_bytes, cpu ? cpu_cache_room() : gpu_room(loaded.device()));
  const int64_t windows = std::max<int64_t>(1, (size + model.context - 1) / model.context);
  const auto balanced = [&](int64_t limit) {
    const int64_t rounds = (windows + limit - 1) / limit;
    return (windows + rounds - 1) / rounds;
  };
  options.streams = balanced(most);
  if (coding.portable) {
    while (options.streams > 1 && portable_bytes(model, options) > room) --options.streams;
    return balanced(options.streams);
  }
  return balanced(streams_that_fit(model, loaded.device(), loaded.product(), options, room));
}

DecoderOptions decoder_options(const LoadedModel& loaded, int64_t size) {
  DecoderOptions options;
  options.positions = std::clamp<int64_t>(size, 1, loaded.config().model.context);
  return options;
}

std::string beginning_of(const std::string& digest) { return digest.substr(0, 8); }

std::string embedded_name(const std::string& file) { return fmt::format("the model in {}", file); }

RunConfig embedded_config(const CompressedHeader& header, const std::string& file) {
  RunConfig config;
  FieldList fields;
  fields.section("model");
  config.model.fields(fields);
  read_toml_text(header.model_config, embedded_name(file), fields);
  try {
    config.model.check();
  } catch (const Error& error) {
    fail("{}: {}", embedded_name(file), error.what());
  }
  return config;
}

void check_model(const LoadedModel& loaded, const CompressedHeader& header, const CodedNames& names) {
  LONGSTRIDE_CHECK(
      header.model == loaded.digest(),
      "{} was compressed with another model, {} (step {}); {} has {} at that step; nothing was written",
      names.file, beginning_of(header.model), header.step, names.run, beginning_of(loaded.digest()));
  LONGSTRIDE_CHECK(header.portable == 0 || header.portable == IntegerModel::kVersion,
                   "{} is a portable file of version {}, this version of longstride reads version {}",
                   names.file, header.portable, IntegerModel::kVersion);
  LONGSTRIDE_CHECK(header.portable > 0 || name_of(loaded.product()) == header.precision,
                   "{} was compressed with products in {}, not {}; leave compute.precision as it was",
                   names.file, header.precision, name_of(loaded.product()));
  LONGSTRIDE_CHECK((header.weights == "int8") == (loaded.quantized() != nullptr),
                   "{} was compressed with weights {}; load the model so", names.file, header.weights);
  LONGSTRIDE_CHECK(header.context == loaded.config().model.context &&
                       (!find_modality(header.kind)->records || header.bytes == header.context),
                   "{} is damaged: its windows have {} bytes, the model's {}", names.file, header.context,
                   loaded.config().model.context);
}

}  // namespace

void embed_model(CompressedHeader& header, const LoadedModel& loaded, const SafetensorsFile& weights) {
  RunConfig config = loaded.config();
  FieldList fields;
  fields.section("model");
  config.model.fields(fields);
  header.model_config = to_toml(fields, false);
  header.model_weights = weights.content();
}

int64_t embedded_decoder_room(const CompressedHeader& header) {
  constexpr int64_t kAlways = int64_t{1} << 30, kForEachByte = 64;
  return kAlways + kForEachByte * std::ssize(header.model_weights);
}

LoadedModel load_embedded_model(const CompressedHeader& header, const std::string& file,
                                const ComputeConfig& compute) {
  RunConfig config = embedded_config(header, file);
  config.compute = compute;
  LONGSTRIDE_CHECK(config.model.context == header.context,
                   "{} is damaged: its windows have {} bytes, the model in it has {}", file, header.context,
                   config.model.context);
  const SafetensorsFile weights(header.model_weights, embedded_name(file));
  return {config, header.step, weights, header.weights == "int8"};
}

std::string embedded_digest(const CompressedHeader& header, const std::string& file) {
  return weights_digest(embedded_config(header, file).model,
                        SafetensorsFile(header.model_weights, embedded_name(file)));
}

LoadedModel load_model_of(const CompressedHeader& header, const CodedNames& names,
                          const ComputeConfig& compute) {
  try {
    return LoadedModel(names.run, compute,
                       {.step = header.step, .int8 = header.weights == "int8", .digest = header.model});
  } catch (const Error& error) {
    fail("{} ({} was compressed with step {} of its run)", error.what(), names.file, header.step);
  }
}

Codec::Codec(const LoadedModel& loaded, int64_t size, const CodingOptions& options)
    : loaded_(loaded),
      options_(decoder_options(loaded, size)),
      device_(options.portable ? kAnyDevice : describe_device(loaded.device())),
      portable_(options.portable) {
  if (portable_) check_portable(loaded);
  options_.streams = choose_streams(loaded, options_, size, options);
}

Codec::Codec(const LoadedModel& loaded, const CompressedHeader& header, const CodedNames& names)
    : loaded_(loaded),
      options_(decoder_options(loaded, header.bytes)),
      header_(header),
      names_(names),
      device_(header.portable > 0 ? kAnyDevice : describe_device(loaded.device())),
      portable_(header.portable > 0),
      decompresses_(true) {
  check_model(loaded, header, names);
  if (portable_) check_portable(loaded);
  options_.streams = header.streams;
}

int64_t Codec::bytes() const {
  if (portable_) return portable_bytes(loaded_.config().model, options_);
  return Decoder::bytes(loaded_.config().model, loaded_.device(), loaded_.product(), options_);
}

void Codec::make_coder() {
  const ModelConfig& model = loaded_.config().model;
  if (portable_) {
    integer_model_ = std::make_unique<IntegerModel>(model, by_role(model, loaded_.weights(), {}));
    integer_decoder_ =
        std::make_unique<IntegerDecoder>(*integer_model_, options_.streams, options_.positions);
    coder_ = std::make_unique<WindowCoder>(static_cast<Predictor&>(*integer_decoder_));
  } else {
    decoder_ = std::make_unique<Decoder>(model, loaded_.parameters(), loaded_.device(), options_,
                                         loaded_.quantized());
    coder_ = std::make_unique<WindowCoder>(*decoder_);
  }
  if (decompresses_ && coder_->probe() != header_.probe) refuse_device();
}

void Codec::describe(CompressedHeader& header, const std::string& weights) {
  header.model = loaded_.digest();
  header.step = loaded_.step();
  header.weights = weights;
  header.portable = portable_ ? IntegerModel::kVersion : 0;
  header.precision = name_of(portable_ ? DType::f32 : loaded_.product());
  header.device = device_;
  header.probe = coder_->probe();
  header.context = loaded_.config().model.context;
  header.streams = options_.streams;
  const int64_t round = header.streams * header.context;
  header.frame_bytes = (kFrameBytes + round - 1) / round * round;
}

Codec::Sums Codec::encode(const CompressedHeader& header, const Reader& read, CompressedWriter& writer,
                          const CodingProgress& progress) {
  Sums sums;
  for (int64_t at = 0; at < header.bytes; at += header.frame_bytes) {
    const std::vector<uint8_t> frame = read(at, std::min(header.frame_bytes, header.bytes - at));
    const Code code = coder_->encode(frame, progress);
    writer.add(frame, code.bytes);
    sums.code += std::ssize(code.bytes);
    sums.bits += code.bits;
  }
  return sums;
}

void Codec::decode(const CompressedFrame& frame, std::span<uint8_t> bytes, const CodingProgress& progress) {
  coder_->decode(frame.code, bytes, progress);
  if (frame_checksum(bytes) != frame.checksum) refuse_frame();
}

void Codec::refuse_device() const {
  if (portable_)
    fail(
        "{}: this version of longstride does not reproduce the probabilities of this portable file; nothing "
        "was written",
        names_.file);
  if (header_.device == device_)
    fail(
        "{}: this device does not reproduce the probabilities it was compressed with, though that was on the "
        "like, {}: another version of longstride or of its libraries, or other settings; nothing was written",
        names_.file, device_);
  fail(
      "{}: this device does not reproduce the probabilities it was compressed with: that was on {}, this is "
      "{}; decompress it there, or try --device or --set compute.instructions=...; nothing was written",
      names_.file, header_.device, device_);
}

// The probabilities of the probe were right, and yet a frame comes out otherwise.
void Codec::refuse_frame() const {
  if (header_.device != device_) refuse_device();
  fail(
      "{} is damaged: its code does not decode to the bytes that were compressed, on the same device, {}; "
      "compress the original again",
      names_.file, device_);
}

}  // namespace longstride
