// Attention against its definition in double precision: every kind of pattern and their unions, odd lengths,
// widths that fill no vector, tensors that are columns of wider ones, and scores that overflow a careless
// softmax. Outputs and scratch hold NaN beforehand.
#include <cmath>
#include <cstring>
#include <limits>

#include "longstride/base/rng.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/reference/attention.h"
#include "longstride/verify/check.h"

namespace longstride::verify {

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  int64_t batch, heads, width, v_width;
};

struct Case {
  std::string pattern;
  int64_t n;
  Shape shape;
  int64_t gap = 0;  // not 0: q, k, v are columns of one array with gaps of this many elements between them
  float gain = 1;   // of q
  DType dtype = DType::f32;

  std::string name(const char* what) const {
    return fmt::format("attention {}, {}, n {}, B {}, H {}, D {}/{}, {}{}{}", what, pattern, n, shape.batch,
                       shape.heads, shape.width, shape.v_width, name_of(dtype),
                       gap == 0 ? "" : fmt::format(", gaps of {}", gap),
                       gain == 1 ? "" : fmt::format(", q * {}", gain));
  }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(shape.width))); }
};

template <class T, int Rank>
View<T, Rank> contiguous(std::vector<T>& data, std::initializer_list<int64_t> shape) {
  View<T, Rank> view;
  view.data = data.data();
  std::copy(shape.begin(), shape.end(), view.shape);
  view.stride[Rank - 1] = 1;
  for (int axis = Rank - 1; axis > 0; --axis) view.stride[axis - 1] = view.stride[axis] * view.shape[axis];
  return view;
}

// Everything that goes into and comes out of one problem, contiguous.
template <class T>
struct Values {
  std::vector<T> q, k, v, d_o;
  std::vector<T> o, lse, dq, dk, dv;
};

// What is left of a value in this type.
float as(DType dtype, float value) {
  if (dtype == DType::bf16) return static_cast<float>(Bf16(value));
  return dtype == DType::f16 ? static_cast<float>(F16(value)) : value;
}
// Half the distance between neighbours of 1.
double rounding_of(DType dtype) { return dtype == DType::bf16 ? 0x1p-9 : dtype == DType::f16 ? 0x1p-11 : 0; }

Values<float> random_inputs(const Case& c) {
  const auto fill = [&](uint32_t stream, int64_t width, float gain) {
    const RandomStream random{static_cast<uint64_t>(c.n), stream};
    std::vector<float> values(c.shape.batch * c.n * c.shape.heads * width);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = as(c.dtype, static_cast<float>(random.normal(i)) * gain);
    return values;
  };
  Values<float> values;
  values.q = fill(0, c.shape.width, c.gain), values.k = fill(1, c.shape.width, 1);
  values.v = fill(2, c.shape.v_width, 1), values.d_o = fill(3, c.shape.v_width, 1);
  return values;
}

// The definition in precision T.
template <class T>
Values<T> by_definition(const Case& c, const Values<float>& inputs) {
  const auto cast = [](const std::vector<float>& from) { return std::vector<T>(from.begin(), from.end()); };
  Values<T> r{cast(inputs.q), cast(inputs.k), cast(inputs.v), cast(inputs.d_o), {}, {}, {}, {}, {}};
  r.o.resize(r.v.size()), r.dq.resize(r.q.size()), r.dk.resize(r.q.size()), r.dv.resize(r.v.size());
  r.lse.resize(c.shape.batch * c.shape.heads * c.n);
  const auto by_width = [&](std::vector<T>& data) {
    return contiguous<T, 4>(data, {c.shape.batch, c.n, c.shape.heads, c.shape.width});
  };
  const auto by_v_width = [&](std::vector<T>& data) {
    return contiguous<T, 4>(data, {c.shape.batch, c.n, c.shape.heads, c.shape.v_width});
  };
  const auto lse = contiguous<T, 3>(r.lse, {c.shape.batch, c.shape.heads, c.n});
  const LayerPattern layer = parse_schedule(c.pattern).layer(0);
  reference::attention_forward<T>(layer, c.scale(), by_width(r.q), by_width(r.k), by_v_width(r.v),
                                  by_v_width(r.o), lse);
  reference::attention_backward<T>(layer, c.scale(), by_width(r.q), by_width(r.k), by_v_width(r.v),
                                   by_v_width(r.o), lse, by_v_width(r.d_o), by_width(r.dq), by_width(r.dk),
                                   by_v_width(r.dv));
  return r;
}

// The plainest computation with weights, their gradients and results rounded to 16 bits, and sums in f32.
Values<float> naive_rounded(const Case& c, const Values<float>& inputs) {
  const auto [batch, heads, width, v_width] = c.shape;
  const auto round = [&](float x) { return as(c.dtype, x); };
  Values<float> r = inputs;
  r.o.assign(r.v.size(), 0), r.dq.assign(r.q.size(), 0), r.dk = r.dq, r.dv = r.o;
  r.lse.assign(batch * heads * c.n, -std::numeric_limits<float>::infinity());
  const LayerPattern layer = parse_schedule(c.pattern).layer(0);
  for (int64_t bh = 0; bh < batch * heads; ++bh) {
    const int64_t b = bh / heads, h = bh % heads;
    const Pattern pattern = layer.for_head(h, heads);
    const auto row = [&](int64_t i) { return (b * c.n + i) * heads + h; };
    for (int64_t q = 0; q < c.n; ++q) {
      std::vector<int64_t> keys;
      std::vector<float> scores;
      for (int64_t k = 0; k <= q; ++k) {
        if (!pattern.allows(q, k)) continue;
        float score = 0;
        for (int64_t d = 0; d < width; ++d) score += r.q[row(q) * width + d] * r.k[row(k) * width + d];
        keys.push_back(k), scores.push_back(score * c.scale());
      }
      if (keys.empty()) continue;
      const float highest = *std::max_element(scores.begin(), scores.end());
      float sum = 0;
      float *o = &r.o[row(q) * v_width], *dq = &r.dq[row(q) * width];
      const float* d_o = &r.d_o[row(q) * v_width];
      for (size_t i = 0; i < keys.size(); ++i) {
        const float weight = std::exp(scores[i] - highest);
        sum += weight;
        for (int64_t d = 0; d < v_width; ++d) o[d] += round(weight) * r.v[row(keys[i]) * v_width + d];
      }
      const float lse = r.lse[bh * c.n + q] = highest + std::log(sum);
      float delta = 0;
      for (int64_t d = 0; d < v_width; ++d) o[d] = round(o[d] / sum), delta += o[d] * d_o[d];
      for (size_t i = 0; i < keys.size(); ++i) {
        const float weight = std::exp(scores[i] - lse);
        float d_weight = 0;
        for (int64_t d = 0; d < v_width; ++d) {
          d_weight += d_o[d] * r.v[row(keys[i]) * v_width + d];
          r.dv[row(keys[i]) * v_width + d] += round(weight) * d_o[d];
        }
        const float d_score = round(weight * (d_weight - delta) * c.scale());
        for (int64_t d = 0; d < width; ++d) {
          dq[d] += d_score * r.k[row(keys[i]) * width + d];
          r.dk[row(keys[i]) * width + d] += d_score * r.q[row(q) * width + d];
        }
      }
    }
  }
  for (std::vector<float>* values : {&r.dq, &r.dk, &r.dv})
    for (float& value : *values) value = round(value);
  return r;
}

// Calls action(T{}) with the type of the elements.
template <class Action>
void with_element(DType dtype, const Action& action) {
  if (dtype == DType::bf16) return action(Bf16{});
  if (dtype == DType::f16) return action(F16{});
  action(float{});
}

void fill_with_nan(std::vector<unsigned char>& memory, DType dtype) {
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    std::fill_n(reinterpret_cast<T*>(memory.data()), memory.size() / sizeof(T), static_cast<T>(kNaN));
  });
}

// Up to three tensors of rows (B, N, H, width), apart or as columns of one array with a gap of NaN after
// each: in CPU memory, where they are written and read, and, for a GPU, once more in its memory.
class Storage {
 public:
  Storage(const Case& c, Device device, std::initializer_list<int64_t> widths) : device_(device) {
    const int64_t rows = c.shape.batch * c.n;
    int64_t row_width = 0;
    for (const int64_t width : widths) row_width += c.shape.heads * width + c.gap;
    memory_.resize(rows * row_width * size_of(c.dtype));
    if (device.kind == DeviceKind::cuda) on_gpu_ = Buffer(device, static_cast<int64_t>(memory_.size()));
    int64_t column = 0;
    for (const int64_t width : widths) {
      const int64_t columns = c.shape.heads * width;
      const Tensor flat =
          c.gap > 0 ? Tensor(memory_.data(), c.dtype, {rows, row_width}).columns(column, column + columns)
                    : Tensor(memory_.data() + rows * column * size_of(c.dtype), c.dtype, {rows, columns});
      tensors_.push_back(flat.split_last(c.shape.heads).split_first(c.shape.batch));
      column += columns + c.gap;
    }
    poison();
  }
  // On the device.
  Tensor operator[](size_t i) const {
    Tensor tensor = tensors_[i];
    if (device_.kind == DeviceKind::cpu) return tensor;
    const auto offset = static_cast<unsigned char*>(tensor.data) - memory_.data();
    tensor.data = static_cast<char*>(on_gpu_.data()) + offset;
    tensor.device = DeviceKind::cuda;
    return tensor;
  }
  void write(size_t i, const std::vector<float>& values) {
    size_t next = 0;
    for_each(i, [&](auto& element) {
      using T = std::remove_reference_t<decltype(element)>;
      element = static_cast<T>(values[next++]);
    });
    upload();
  }
  std::vector<float> read(size_t i) const {
    download();
    std::vector<float> values;
    for_each(i, [&](auto& element) { values.push_back(static_cast<float>(element)); });
    return values;
  }
  int64_t count_nan() const {
    download();
    int64_t count = 0;
    with_element(tensors_[0].dtype, [&](auto element) {
      using T = decltype(element);
      for (size_t i = 0; i < memory_.size() / sizeof(T); ++i)
        count += std::isnan(static_cast<float>(reinterpret_cast<const T*>(memory_.data())[i]));
    });
    return count;
  }
  void poison() {
    fill_with_nan(memory_, tensors_[0].dtype);
    upload();
  }

 private:
  Tensor host_bytes() const {
    return Tensor(const_cast<unsigned char*>(memory_.data()), DType::u8,
                  {static_cast<int64_t>(memory_.size())});
  }
  Tensor gpu_bytes() const { return Tensor(on_gpu_.data(), DType::u8, {on_gpu_.bytes()}, DeviceKind::cuda); }
  void upload() const {
    if (on_gpu_.data() != nullptr) copy(host_bytes(), gpu_bytes());
  }
  void download() const {
    if (on_gpu_.data() != nullptr) copy(gpu_bytes(), host_bytes());
  }
  template <class Visit>
  void for_each(size_t i, const Visit& visit) const {
    with_element(tensors_[i].dtype, [&](auto element) {
      const auto view = tensors_[i].view<decltype(element), 4>();
      for (int64_t b = 0; b < view.shape[0]; ++b)
        for (int64_t n = 0; n < view.shape[1]; ++n)
          for (int64_t h = 0; h < view.shape[2]; ++h)
            for (int64_t d = 0; d < view.shape[3]; ++d) visit(view(b, n, h, d));
    });
  }
  Device device_;
  std::vector<unsigned char> memory_;
  Buffer on_gpu_;
  std::vector<Tensor> tensors_;
};

void poison(Arena& arena, int64_t bytes) {
  const Arena::Scope scope(arena);
  const Tensor all = arena.allocate(DType::f32, {bytes / 4});
  std::vector<float> values(bytes / 4, kNaN);
  copy(Tensor(values.data(), DType::f32, {bytes / 4}), all);
}

// A yes or no as a Check.
Check holds(std::string name, bool truth) {
  return {std::move(name), truth ? 0 : std::numeric_limits<double>::infinity(), 0};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The results of the op under test. `repeats` and `gaps` report what values cannot show.
struct Ours {
  Values<float> values;
  bool repeats = true;  // a second run gave the same bits
  bool gaps = true;     // nothing was written beside the outputs
};

Ours run(const Case& c, Device device, const Values<float>& inputs) {
  const AttentionPlan plan = plan_attention(device, parse_schedule(c.pattern).layer(0), c.shape.heads, c.n);
  const auto [batch, heads, width, v_width] = c.shape;
  const int64_t bytes = attention_scratch_bytes(device, plan, batch, heads, width, v_width);
  Arena scratch(device, bytes);
  const OpContext context{device, &scratch};
  Storage qkv(c, device, {width, width, v_width}), outputs(c, device, {v_width}),
      upstream(c, device, {v_width});
  Storage gradients(c, device, {width, width, v_width});
  qkv.write(0, inputs.q), qkv.write(1, inputs.k), qkv.write(2, inputs.v), upstream.write(0, inputs.d_o);
  const Buffer lse_memory(device, batch * heads * c.n * 4);
  const Tensor lse(lse_memory.data(), DType::f32, {batch, heads, c.n}, device.kind);
  std::vector<float> lse_values(batch * heads * c.n);
  const Tensor host_lse(lse_values.data(), DType::f32, {batch, heads, c.n});
  const AttentionTensors tensors{qkv[0], qkv[1], qkv[2], outputs[0], lse, c.scale()};
  Ours ours;
  for (int time = 0; time < 2; ++time) {
    std::fill(lse_values.begin(), lse_values.end(), kNaN);
    copy(host_lse, lse);
    outputs.poison(), gradients.poison();
    poison(scratch, bytes);
    attention_forward(context, plan, tensors);
    poison(scratch, bytes);
    attention_backward(context, plan, tensors, {upstream[0], gradients[0], gradients[1], gradients[2]});
    copy(lse, host_lse);
    Values<float> values{
        {}, {}, {}, {}, outputs.read(0), lse_values, gradients.read(0), gradients.read(1), gradients.read(2)};
    if (time == 1)
      ours.repeats = same_bits(values.o, ours.values.o) && same_bits(values.lse, ours.values.lse) &&
                     same_bits(values.dq, ours.values.dq) && same_bits(values.dk, ours.values.dk) &&
                     same_bits(values.dv, ours.values.dv);
    ours.values = std::move(values);
  }
  const int64_t rows = batch * c.n;
  ours.gaps = outputs.count_nan() >= rows * c.gap && gradients.count_nan() >= 3 * rows * c.gap;
  return ours;
}

// Keys or values as a sampler keeps them: (B, H, N, width), seen as (B, N, H, width).
class KeptRows {
 public:
  KeptRows(const Case& c, Device device, DType dtype, int64_t width, const std::vector<float>& values)
      : buffer_(device, static_cast<int64_t>(values.size()) * size_of(dtype)),
        tensor_(buffer_.data(), dtype, {c.shape.batch, c.shape.heads, c.n, width}, device.kind) {
    with_element(dtype, [&](auto element) {
      using T = decltype(element);
      std::vector<T> elements(values.size());
      size_t next = 0;
      for (int64_t b = 0; b < c.shape.batch; ++b)
        for (int64_t n = 0; n < c.n; ++n)
          for (int64_t h = 0; h < c.shape.heads; ++h)
            for (int64_t d = 0; d < width; ++d)
              elements[((b * c.shape.heads + h) * c.n + n) * width + d] = static_cast<T>(values[next++]);
      copy(Tensor(elements.data(), dtype, {c.shape.batch, c.shape.heads, c.n, width}), tensor_);
    });
    std::swap(tensor_.shape[1], tensor_.shape[2]);
    std::swap(tensor_.stride[1], tensor_.stride[2]);
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

// o of attention_one at every position, laid out like o of the forward; keys and values are read in `kept`.
std::vector<float> run_one(const Case& c, Device device, const Values<float>& inputs,
                           DType kept = DType::f32) {
  const auto [batch, heads, width, v_width] = c.shape;
  const LayerPattern layer = parse_schedule(c.pattern).layer(0);
  Storage qkv(c, device, {width, width, v_width}), outputs(c, device, {v_width});
  qkv.write(0, inputs.q), qkv.write(1, inputs.k), qkv.write(2, inputs.v);
  const auto at_position = [](Tensor t, int64_t position) {  // (B, N, H, D) -> (B, H, D)
    t.data = static_cast<float*>(t.data) + position * t.stride[1];
    t.rank = 3;
    t.shape = {t.shape[0], t.shape[2], t.shape[3]};
    t.stride = {t.stride[0], t.stride[2], t.stride[3]};
    return t;
  };
  const bool narrow = kept != DType::f32;
  const KeptRows keys(c, device, kept, width, inputs.k), values(c, device, kept, v_width, inputs.v);
  for (int64_t position = 0; position < c.n; ++position)
    attention_one({device}, layer, position, at_position(qkv[0], position), narrow ? keys.tensor() : qkv[1],
                  narrow ? values.tensor() : qkv[2], c.scale(), at_position(outputs[0], position));
  return outputs.read(0);
}

double largest(std::span<const double> values) {
  double result = 0;
  for (const double value : values)
    if (std::isfinite(value)) result = std::max(result, std::abs(value));
  return result;
}

// dq and dk vanish where a query sees a single key, and what is left is rounding: they are measured against
// dv at least.
Check compare_gradient(std::string name, std::span<const float> ours, std::span<const float> naive,
                       std::span<const double> reference, std::span<const double> dv, double floor) {
  const double magnitude = std::max(1e-30, largest(dv));
  return {std::move(name), relative_error(ours, reference, magnitude),
          2 * relative_error(naive, reference, magnitude) + floor};
}

std::vector<DType> narrow_dtypes(Device device) {
  if (device.kind == DeviceKind::cuda) return {DType::bf16, DType::f16};
  return {DType::bf16};
}

void check_case(const Case& c, Device device, std::vector<Check>& checks) {
  const Values<float> inputs = random_inputs(c);
  const Values<double> truth = by_definition<double>(c, inputs);
  const Values<float> naive =
      c.dtype == DType::f32 ? by_definition<float>(c, inputs) : naive_rounded(c, inputs);
  const Ours ours = run(c, device, inputs);
  // A weight is exp(score - lse): where these are large, their own last bit is the floor (the naive result
  // may be lucky).
  // In 16 bits sums are rounded after each pass.
  size_t passes = 1;
  for (const Plan& plan :
       plan_attention(device, parse_schedule(c.pattern).layer(0), c.shape.heads, c.n).plans)
    passes = std::max(passes, plan.passes.size());
  const double rounding = rounding_of(c.dtype) * static_cast<double>(passes);
  const double floor = 1e-6 + rounding + (c.gain == 1 ? 0 : 0x1p-23 * largest(truth.lse));
  checks.push_back(compare(c.name("o"), ours.values.o, naive.o, truth.o, floor));
  checks.push_back(compare(c.name("lse"), ours.values.lse, naive.lse, truth.lse));
  checks.push_back(compare_gradient(c.name("dq"), ours.values.dq, naive.dq, truth.dq, truth.dv, floor));
  checks.push_back(compare_gradient(c.name("dk"), ours.values.dk, naive.dk, truth.dk, truth.dv, floor));
  checks.push_back(compare(c.name("dv"), ours.values.dv, naive.dv, truth.dv, floor));
  checks.push_back(holds(c.name("same bits twice"), ours.repeats));
  if (c.gap > 0) checks.push_back(holds(c.name("gaps untouched"), ours.gaps));
  if (c.n > 77 || c.dtype != DType::f32) return;
  checks.push_back(compare(c.name("one by one"), run_one(c, device, inputs), naive.o, truth.o, floor));
  for (const DType dtype : narrow_dtypes(device)) {
    Values<float> kept = inputs;
    for (std::vector<float>* values : {&kept.k, &kept.v})
      for (float& value : *values) value = as(dtype, value);
    checks.push_back(compare(c.name("one by one") + fmt::format(", {} keys and values", name_of(dtype)),
                             run_one(c, device, kept, dtype), by_definition<float>(c, kept).o,
                             by_definition<double>(c, kept).o, floor));
  }
}

const char* const kPatterns[] = {
    "dense",
    "window:5",
    "window:1",
    "block:8",
    "stride:7",
    "summary:8,3",
    "summary:8,2,1",
    "spread-summary:8,2",
    "prefix:3",
    "previous-row:6",
    "dilated:4,3",
    "strided:8",
    "fixed:8,2",
    "spread-fixed:8,2",
    "window:70+prefix:16",
    "window:4|stride:4",
    "summary:8,3|block:6",
    "stride:7+summary:8,2",
    "stride:300",
    "fixed:64,16",
    "strided:64",
    "block:100+summary:100,30",
    "dilated:3,5+stride:8+window:3",
    "stride:16+prefix:5+previous-row:10",
};

int64_t groups_of(const std::string& pattern) { return 1 + std::count(pattern.begin(), pattern.end(), '|'); }

std::vector<Case> cases(Device device, Effort effort) {
  const Shape shapes[] = {{1, 2, 8, 8},   {2, 2, 5, 9},   {1, 1, 64, 64},
                          {2, 4, 32, 64}, {1, 2, 16, 80}, {2, 1, 17, 33}};
  std::vector<Case> list;
  size_t problems = 0;
  const auto add = [&](const std::string& pattern, int64_t n, Shape shape, float gain = 1) {
    shape.heads = std::max(shape.heads, groups_of(pattern));
    // Gaps of 8 keep rows aligned, gaps of 3 do not.
    const int64_t gaps[] = {0, 3, 0, 8};
    const int64_t gap = gaps[problems++ % 4];
    list.push_back({pattern, n, shape, gap, gain, DType::f32});
    for (const DType dtype : narrow_dtypes(device))
      if (dtype == DType::bf16 || gain < 1000) list.push_back({pattern, n, shape, gap, gain, dtype});
  };
  size_t turn = 0;
  if (effort == Effort::quick) {
    const int64_t lengths[] = {77, 16, 130};
    for (const char* pattern : kPatterns) add(pattern, lengths[turn % 3], shapes[turn % 2]), ++turn;
    add("strided:64", 257, shapes[4]);
    if (device.kind == DeviceKind::cuda) {
      add("fixed:64,16", 130, {1, 2, 64, 64});
      add("strided:48", 130, {1, 1, 64, 128});
      add("window:100", 130, {1, 1, 128, 128});
    }
  } else {
    // Lengths and shapes turn at different speeds, so that they meet in all combinations.
    for (const int64_t n : {1, 2, 7, 33, 64, 77, 130, 257})
      for (const char* pattern : kPatterns) add(pattern, n, shapes[turn++ % 6]);
    for (const Shape& shape : shapes)
      for (const char* pattern : {"strided:24", "fixed:24,8", "dense"})
        add(pattern, 200, shape), add(pattern, 63, shape);
  }
  // The widths that the GPU has kernels for, and some that they are padded for.
  if (device.kind == DeviceKind::cuda)
    for (const Shape& shape :
         {Shape{2, 3, 64, 64}, Shape{1, 2, 32, 32}, Shape{1, 2, 64, 128}, Shape{1, 1, 128, 128},
          Shape{2, 1, 40, 24}, Shape{1, 1, 24, 48}, Shape{1, 2, 96, 96}, Shape{1, 1, 136, 64}})
      for (const char* pattern : {"fixed:64,16", "strided:48", "window:100", "block:128+summary:128,32"})
        add(pattern, 300, shape), add(pattern, 513, shape);
  // Scores of some 80, where exp leaves the range of f32, and far beyond.
  for (const float gain : {25.0f, 3000.0f})
    add("window:40+stride:16", 77, shapes[2], gain), add("dense", 130, shapes[1], gain);
  return list;
}

}  // namespace

std::vector<Check> check_attention(Device device, Effort effort) {
  std::vector<Check> checks;
  for (const Case& c : cases(device, effort)) check_case(c, device, checks);
  return checks;
}

}  // namespace longstride::verify
