#include "longstride/model/sequence_ranks.h"

#include <algorithm>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/ops/profile.h"
#include "longstride/ops/rows.h"

namespace longstride {

namespace {

// Positions of `ranges` that are marked, in rows of whole tensors, for each sequence.
std::vector<int32_t> marked_rows(const std::vector<bool>& marked, std::span<const IndexRange> ranges,
                                 int64_t batch) {
  std::vector<int32_t> rows;
  const auto n = static_cast<int64_t>(marked.size());
  for (int64_t b = 0; b < batch; ++b)
    for (const IndexRange& range : ranges)
      for (int64_t position = range.begin; position < range.end; ++position)
        if (marked[static_cast<size_t>(position)]) rows.push_back(static_cast<int32_t>(b * n + position));
  return rows;
}

}  // namespace

RankPositions::RankPositions(int64_t n, int64_t batch, const SequenceRanks& ranks) {
  int64_t own = 0;
  for (int64_t b = 0; b < batch; ++b)
    for (const IndexRange& range : positions_of_part(n, ranks.parts, ranks.index)) {
      const int64_t count = range.end - range.begin;
      chunks_.push_back({own, b * n + range.begin, range.begin, count});
      own += count;
    }
}

void RankPositions::to_whole(const Tensor& own, const Tensor& whole) const {
  const OpTimer timer("copy_own_rows", OpWork{2 * own.bytes()});
  for (const Chunk& c : chunks_)
    copy(own.rows(c.own, c.own + c.count), whole.rows(c.whole, c.whole + c.count));
}

void RankPositions::from_whole(const Tensor& whole, const Tensor& own) const {
  const OpTimer timer("copy_own_rows", OpWork{2 * own.bytes()});
  for (const Chunk& c : chunks_)
    copy(whole.rows(c.whole, c.whole + c.count), own.rows(c.own, c.own + c.count));
}

namespace {

// Calls run_rows(first row, end row, place of the first row's first element among the masks).
template <class RunRows>
void by_chunks(const RankPositions& positions, const Dropout& dropout, int64_t width,
               const RunRows& run_rows) {
  for (const RankPositions::Chunk& c : positions.chunks()) {
    Dropout of_chunk = dropout;
    of_chunk.first += c.whole * width;
    run_rows(c.own, c.own + c.count, of_chunk);
  }
}

}  // namespace

void run_residual(const OpContext& context, const RankPositions* positions, const ResidualForward& call) {
  if (positions == nullptr || call.dropout.probability == 0) return run(context, call);
  by_chunks(*positions, call.dropout, call.x.shape[1],
            [&](int64_t begin, int64_t end, const Dropout& dropout) {
              ResidualForward part = call;
              for (Tensor* t : {&part.x, &part.branch, &part.y, &part.normed, &part.mean, &part.rstd})
                *t = t->rows(begin, end);
              part.dropout = dropout;
              run(context, part);
            });
}

void run_residual(const OpContext& context, const RankPositions* positions, const ResidualBackward& call) {
  if (positions == nullptr || call.dropout.probability == 0) return run(context, call);
  by_chunks(*positions, call.dropout, call.x.shape[1],
            [&](int64_t begin, int64_t end, const Dropout& dropout) {
              ResidualBackward part = call;
              for (Tensor* t : {&part.dy, &part.x, &part.mean, &part.rstd, &part.dx, &part.dbranch})
                *t = t->rows(begin, end);
              part.dropout = dropout;
              run(context, part);
            });
}

SharedAttention::SharedAttention(const ModelConfig& config, int64_t batch, Device device,
                                 const SequenceRanks& ranks,
                                 std::span<const std::shared_ptr<const AttentionPlan>> whole)
    : config_(config), batch_(batch), ranks_(ranks), positions_(config.context, batch, ranks) {
  LONGSTRIDE_CHECK(batch * config.context < int64_t{1} << 31,
                   "{} sequences of {} positions at a time are more than 32 bits can number", batch,
                   config.context);
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto same = std::find(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(i), whole[i]);
    if (same != whole.begin() + static_cast<std::ptrdiff_t>(i)) {
      layers_.push_back(layers_[static_cast<size_t>(same - whole.begin())]);
      continue;
    }
    auto layer = std::make_shared<Layer>();
    const auto own = positions_of_part(config.context, ranks.parts, ranks.index);
    std::vector<std::vector<bool>> looked_at;  // by part
    for (int64_t part = 0; part < ranks.parts; ++part) {
      AttentionPlan plan = plan_of_queries(*whole[i], positions_of_part(config.context, ranks.parts, part));
      std::vector<bool>& keys = looked_at.emplace_back(static_cast<size_t>(config.context));
      for (const Plan& of_head : plan.plans) mark_keys(of_head, keys);
      if (part == ranks.index) layer->plan = std::make_shared<const AttentionPlan>(std::move(plan));
    }
    for (int64_t part = 0; part < ranks.parts; ++part) {
      if (part == ranks.index) continue;
      const int rank = ranks.first_rank + static_cast<int>(part);
      const auto theirs = positions_of_part(config.context, ranks.parts, part);
      layer->give.push_back({rank, marked_rows(looked_at[static_cast<size_t>(part)], own, batch), {}});
      layer->take.push_back(
          {rank, marked_rows(looked_at[static_cast<size_t>(ranks.index)], theirs, batch), {}});
    }
    layers_.push_back(std::move(layer));
  }
}

int64_t SharedAttention::rows_of(const std::vector<Rows>& lists) {
  int64_t rows = 0;
  for (const Rows& list : lists) rows += static_cast<int64_t>(list.numbers.size());
  return rows;
}

SharedAttention::Room SharedAttention::allocate(DType product, Arena& arena) const {
  int64_t most = 0;
  for (const auto& layer : layers_) most = std::max({most, rows_of(layer->give), rows_of(layer->take)});
  Room room;
  room.out = arena.allocate(product, {most, config_.qkv() - config_.qk()});
  room.in = arena.allocate(product, {most, config_.qkv() - config_.qk()});
  return room;
}

void SharedAttention::use(Device device, const Room& room) {
  room_ = room;
  for (auto layer = layers_.begin(); layer != layers_.end(); ++layer) {
    if (std::find(layers_.begin(), layer, *layer) != layer) continue;
    if (device.kind != DeviceKind::cpu)
      (*layer)->plan = std::make_shared<const AttentionPlan>(uploaded(*(*layer)->plan, device));
    for (std::vector<Rows>* lists : {&(*layer)->give, &(*layer)->take})
      for (Rows& list : *lists) {
        const auto count = static_cast<int64_t>(list.numbers.size());
        numbers_.emplace_back(device, count * static_cast<int64_t>(sizeof(int32_t)));
        list.on_device = Tensor(numbers_.back().data(), DType::i32, {count}, device.kind);
        if (count > 0) copy(Tensor(list.numbers.data(), DType::i32, {count}), list.on_device);
      }
  }
}

int64_t SharedAttention::bytes() const {
  int64_t bytes = 0;
  for (auto layer = layers_.begin(); layer != layers_.end(); ++layer)
    if (std::find(layers_.begin(), layer, *layer) == layer)
      bytes += (rows_of((*layer)->give) + rows_of((*layer)->take)) * static_cast<int64_t>(sizeof(int32_t));
  return bytes;
}

Tensor SharedAttention::keys_and_values(const Tensor& qkv) const {
  return qkv.columns(config_.qk(), config_.qkv());
}

void SharedAttention::exchange(const OpContext& context, const std::vector<Rows>& give,
                               const std::vector<Rows>& take, const Tensor& from, const Tensor& to,
                               bool adds) const {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  std::vector<Tensor> arrived;
  int64_t at = 0;
  for (const Rows& list : give) {
    const int64_t count = list.on_device.shape[0];
    if (count == 0) continue;
    const Tensor rows = room_.out.rows(at, at + count);
    run(context, PickRows{from, list.on_device, rows});
    out.push_back({list.rank, rows.data, rows.bytes()});
    at += count;
  }
  at = 0;
  for (const Rows& list : take) {
    const int64_t count = list.on_device.shape[0];
    arrived.push_back(room_.in.rows(at, at + count));
    if (count > 0) in.push_back({list.rank, arrived.back().data, arrived.back().bytes()});
    at += count;
  }
  {
    OpWork work;
    for (const Outgoing& piece : out) work.bytes += piece.bytes;
    const OpTimer timer("exchange_rows", work);
    (*ranks_.devices)->exchange(out, in);
  }
  for (size_t i = 0; i < take.size(); ++i)
    if (take[i].on_device.shape[0] > 0) run(context, PlaceRows{arrived[i], take[i].on_device, to, adds});
}

void SharedAttention::forward(const OpContext& context, int64_t layer, const AttentionTensors& t,
                              const Tensor& qkv) const {
  const Layer& own = of_layer(layer);
  exchange(context, own.give, own.take, keys_and_values(qkv), keys_and_values(qkv), false);
  run(context, AttentionForward{*own.plan, t});
}

void SharedAttention::backward(const OpContext& context, int64_t layer, const AttentionTensors& t,
                               const AttentionGradients& gradients, const Tensor& d_qkv) const {
  const Layer& own = of_layer(layer);
  run(context, AttentionBackward{*own.plan, t, gradients});
  exchange(context, own.take, own.give, keys_and_values(d_qkv), keys_and_values(d_qkv), true);
}

}  // namespace longstride
