#include "longstride/model/sequence_ranks.h"

#include <algorithm>
#include <map>
#include <set>
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
    if (same != whole.begin() + static_cast<std::ptrdiff_t>(i))
      layers_.push_back(layers_[static_cast<size_t>(same - whole.begin())]);
    else
      layers_.push_back(std::make_shared<Layer>(turns_of(*whole[i])));
  }
}

namespace {

// Heads first, first + step, ...
struct Heads {
  int64_t first, step, count;
};

// The heads of each plan, if each has evenly spaced ones; else all heads.
std::vector<Heads> heads_by_plan(const AttentionPlan& whole) {
  const auto heads = static_cast<int64_t>(whole.plan_of_head.size());
  std::vector<Heads> found(whole.plans.size(), Heads{0, 0, 0});
  for (int64_t h = 0; h < heads; ++h) {
    Heads& of_plan = found[static_cast<size_t>(whole.plan_of_head[static_cast<size_t>(h)])];
    if (of_plan.count == 0)
      of_plan = {h, 1, 1};
    else if (of_plan.count == 1)
      of_plan.step = h - of_plan.first, ++of_plan.count;
    else if (h == of_plan.first + of_plan.count * of_plan.step)
      ++of_plan.count;
    else
      return {{0, 1, heads}};
  }
  return found;
}

// Of these heads alone.
AttentionPlan plan_of_heads(const AttentionPlan& whole, const Heads& heads) {
  AttentionPlan plan;
  plan.n = whole.n;
  std::vector<int> number(whole.plans.size(), -1);  // in `plan`
  for (int64_t i = 0; i < heads.count; ++i) {
    const auto old =
        static_cast<size_t>(whole.plan_of_head[static_cast<size_t>(heads.first + i * heads.step)]);
    if (number[old] < 0) {
      number[old] = static_cast<int>(plan.plans.size());
      plan.plans.push_back(whole.plans[old]);
    }
    plan.plan_of_head.push_back(number[old]);
  }
  return plan;
}

int64_t count_marked(const std::vector<bool>& keys, std::span<const IndexRange> ranges) {
  int64_t count = 0;
  for (const IndexRange& range : ranges)
    count += std::count(keys.begin() + range.begin, keys.begin() + range.end, true);
  return count;
}

// How many turns heads that are all alike take, when so many elements arrive. A turn has to take so long that what
// its start costs is little beside it: about 0.2 ms of a fast wire.
int64_t turns_that_pay(int64_t elements, int64_t heads) {
  constexpr int64_t kOfTurn = int64_t{32} << 20, kMost = 4;
  int64_t turns = 1;
  while (2 * turns <= kMost && heads % (2 * turns) == 0 && elements / (2 * turns) >= kOfTurn) turns *= 2;
  return turns;
}

}  // namespace

SharedAttention::Layer SharedAttention::turns_of(const AttentionPlan& whole) const {
  Layer layer;
  for (const Heads& alike : heads_by_plan(whole)) {
    const AttentionPlan of_heads = plan_of_heads(whole, alike);
    auto lists = std::make_shared<Lists>();
    AttentionPlan own_plan;
    std::vector<std::vector<bool>> looked_at;  // by part
    int64_t most = 0;                          // positions that travel to a part
    for (int64_t part = 0; part < ranks_.parts; ++part) {
      const auto theirs = positions_of_part(config_.context, ranks_.parts, part);
      AttentionPlan plan = plan_of_queries(of_heads, theirs);
      std::vector<bool>& keys = looked_at.emplace_back(static_cast<size_t>(config_.context));
      for (const Plan& of_head : plan.plans) mark_keys(of_head, keys);
      most = std::max<int64_t>(most, std::count(keys.begin(), keys.end(), true) - count_marked(keys, theirs));
      if (part == ranks_.index) own_plan = std::move(plan);
    }
    const auto own = positions_of_part(config_.context, ranks_.parts, ranks_.index);
    for (int64_t part = 0; part < ranks_.parts; ++part) {
      if (part == ranks_.index) continue;
      const int rank = ranks_.first_rank + static_cast<int>(part);
      const auto theirs = positions_of_part(config_.context, ranks_.parts, part);
      lists->give.push_back({rank, marked_rows(looked_at[static_cast<size_t>(part)], own, batch_), {}});
      lists->take.push_back(
          {rank, marked_rows(looked_at[static_cast<size_t>(ranks_.index)], theirs, batch_), {}});
    }
    // All ranks have to find the same number.
    const int64_t elements = batch_ * most * alike.count * (config_.qk_head() + config_.v_head());
    const bool can_be_cut = alike.step == 1 && of_heads.plans.size() == 1;
    const int64_t turns =
        !can_be_cut ? 1 : (ranks_.turns > 0 ? ranks_.turns : turns_that_pay(elements, alike.count));
    LONGSTRIDE_CHECK(alike.count % turns == 0, "{} heads cannot take {} turns", alike.count, turns);
    const int64_t count = alike.count / turns;
    own_plan.plan_of_head.resize(static_cast<size_t>(count));
    own_plan.pairs /= turns;
    const auto plan = std::make_shared<const AttentionPlan>(std::move(own_plan));
    for (int64_t turn = 0; turn < turns; ++turn)
      layer.push_back({alike.first + turn * count * alike.step, alike.step, count,
                       layer.empty() ? 0 : layer.back().heads_before + layer.back().count, plan, lists});
  }
  return layer;
}

std::vector<IndexRange> SharedAttention::columns_of(const Turn& turn) const {
  const int64_t qk = config_.qk(), width = config_.qk_head(), width_v = config_.v_head();
  if (turn.step == 1 && turn.count == config_.heads) return {{qk, config_.qkv()}};
  std::vector<IndexRange> columns;
  const int64_t runs = turn.step == 1 ? 1 : turn.count, heads = turn.count / runs;
  for (int64_t run = 0; run < runs; ++run) {
    const int64_t first = turn.first + run * turn.step;
    columns.push_back({qk + first * width, qk + (first + heads) * width});
    columns.push_back({2 * qk + first * width_v, 2 * qk + (first + heads) * width_v});
  }
  return columns;
}

int64_t SharedAttention::elements_of(const Turn& turn, const std::vector<Rows>& lists) const {
  int64_t rows = 0;
  for (const Rows& list : lists) rows += static_cast<int64_t>(list.numbers.size());
  return rows * turn.count * (config_.qk_head() + config_.v_head());
}

int64_t SharedAttention::elements_of(const Layer& layer, std::vector<Rows> Lists::*which) const {
  int64_t elements = 0;
  for (const Turn& turn : layer) elements += elements_of(turn, (*turn.lists).*which);
  return elements;
}

SharedAttention::Room SharedAttention::allocate(DType product, bool keeps, Arena& arena) const {
  // In the backward pass what was received leaves, and the other way round.
  int64_t most = 0;
  for (const auto& layer : layers_)
    most = std::max({most, elements_of(*layer, &Lists::give), elements_of(*layer, &Lists::take)});
  Room room;
  room.out = arena.allocate(product, {most});
  room.in = arena.allocate(product, {most});
  if (keeps)
    for (int64_t layer = 0; layer < config_.layers; ++layer)
      room.kept.push_back(arena.allocate(product, {elements_of(of_layer(layer), &Lists::take)}));
  return room;
}

void SharedAttention::use(Device device, const Room& room) {
  room_ = room;
  size_t turns = 1;
  std::map<const AttentionPlan*, std::shared_ptr<const AttentionPlan>> plans;
  std::set<const Lists*> seen;
  for (const auto& layer : layers_) {
    turns = std::max(turns, layer->size());
    for (Turn& turn : *layer) {
      if (device.kind != DeviceKind::cpu && turn.plan->on_device == nullptr) {
        auto& there = plans[turn.plan.get()];
        if (there == nullptr) there = std::make_shared<const AttentionPlan>(uploaded(*turn.plan, device));
        turn.plan = there;
      }
      if (!seen.insert(turn.lists.get()).second) continue;
      for (std::vector<Rows>* lists : {&turn.lists->give, &turn.lists->take})
        for (Rows& list : *lists) {
          const auto count = static_cast<int64_t>(list.numbers.size());
          numbers_.emplace_back(device, count * static_cast<int64_t>(sizeof(int32_t)));
          list.on_device = Tensor(numbers_.back().data(), DType::i32, {count}, device.kind);
          if (count > 0) copy(Tensor(list.numbers.data(), DType::i32, {count}), list.on_device);
        }
    }
  }
  side_ = backend(device).side_stream(static_cast<int>(turns));
}

int64_t SharedAttention::bytes() const {
  int64_t rows = 0;
  std::set<const Lists*> seen;
  for (const auto& layer : layers_)
    for (const Turn& turn : *layer) {
      if (!seen.insert(turn.lists.get()).second) continue;
      for (const std::vector<Rows>* lists : {&turn.lists->give, &turn.lists->take})
        for (const Rows& list : *lists) rows += static_cast<int64_t>(list.numbers.size());
    }
  return rows * static_cast<int64_t>(sizeof(int32_t));
}

template <class Visit>
void SharedAttention::for_each_block(const Turn& turn, const std::vector<Rows>& lists, const Tensor& elements,
                                     int64_t begin, const Visit& visit) const {
  const std::vector<IndexRange> columns = columns_of(turn);
  for (const Rows& list : lists) {
    const int64_t rows = list.on_device.shape[0];
    if (rows == 0) continue;
    for (const IndexRange& range : columns) {
      const int64_t width = range.end - range.begin, end = begin + rows * width;
      visit(list, range, elements.rows(begin, end).reshaped({rows, width}));
      begin = end;
    }
  }
}

void SharedAttention::pick(const OpContext& context, const Turn& turn, const std::vector<Rows>& lists,
                           const Tensor& from, int64_t begin) const {
  for_each_block(turn, lists, room_.out, begin,
                 [&](const Rows& list, const IndexRange& columns, const Tensor& dense) {
                   run(context, PickRows{from.columns(columns.begin, columns.end), list.on_device, dense});
                 });
}

void SharedAttention::place(const OpContext& context, const Turn& turn, const std::vector<Rows>& lists,
                            const Tensor& arrived, int64_t begin, const Tensor& to, bool adds) const {
  for_each_block(
      turn, lists, arrived, begin, [&](const Rows& list, const IndexRange& columns, const Tensor& dense) {
        run(context, PlaceRows{dense, list.on_device, to.columns(columns.begin, columns.end), adds});
      });
}

void SharedAttention::exchange(const Turn& turn, const Side& leaves, const Side& arrives, size_t mark) const {
  OpWork work;
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  const int64_t width = turn.count * (config_.qk_head() + config_.v_head());
  int64_t begin = leaves.begin;
  for (const Rows& list : leaves.lists) {
    const int64_t end = begin + list.on_device.shape[0] * width;
    const Tensor piece = leaves.elements.rows(begin, end);
    if (end > begin) out.push_back({list.rank, piece.data, piece.bytes()}), work.bytes += piece.bytes();
    begin = end;
  }
  begin = arrives.begin;
  for (const Rows& list : arrives.lists) {
    const int64_t end = begin + list.on_device.shape[0] * width;
    const Tensor piece = arrives.elements.rows(begin, end);
    if (end > begin) in.push_back({list.rank, piece.data, piece.bytes()});
    begin = end;
  }
  side_->follow();
  side_->run([&] {
    const OpTimer timer("exchange_rows", work);
    (*ranks_.devices)->exchange(out, in);
  });
  side_->mark(static_cast<int>(mark));
}

namespace {

// The heads of a turn.
Tensor heads_of(Tensor t, int axis, int64_t first, int64_t step, int64_t count) {
  const auto a = static_cast<size_t>(axis);
  t.data = static_cast<char*>(t.data) + first * t.stride[a] * size_of(t.dtype);
  t.stride[a] *= step;
  t.shape[a] = count;
  return t;
}

}  // namespace

AttentionTensors SharedAttention::tensors_of(const Turn& turn, AttentionTensors t) {
  for (Tensor* tensor : {&t.q, &t.k, &t.v, &t.o})
    *tensor = heads_of(*tensor, 2, turn.first, turn.step, turn.count);
  // Attention alone reads this: in the order of the turns.
  const int64_t batch = t.lse.shape[0], n = t.lse.shape[2], begin = turn.heads_before * batch * n;
  const Tensor flat = t.lse.reshaped({t.lse.count()});
  t.lse = flat.rows(begin, begin + batch * turn.count * n).reshaped({batch, turn.count, n});
  return t;
}

const Tensor& SharedAttention::arrived_of(int64_t layer) const {
  return room_.kept.empty() ? room_.in : room_.kept[static_cast<size_t>(layer)];
}

void SharedAttention::forward(const OpContext& context, int64_t layer, const AttentionTensors& t,
                              const Tensor& qkv) const {
  const Layer& turns = of_layer(layer);
  const Tensor& arrived = arrived_of(layer);
  int64_t out = 0, in = 0;
  for (size_t i = 0; i < turns.size(); ++i) {
    const Lists& lists = *turns[i].lists;
    pick(context, turns[i], lists.give, qkv, out);
    exchange(turns[i], {lists.give, room_.out, out}, {lists.take, arrived, in}, i);
    out += elements_of(turns[i], lists.give), in += elements_of(turns[i], lists.take);
  }
  attend(context, layer, t, qkv, true);
}

void SharedAttention::forward_again(const OpContext& context, int64_t layer, const AttentionTensors& t,
                                    const Tensor& qkv) const {
  if (room_.kept.empty())
    forward(context, layer, t, qkv);
  else
    attend(context, layer, t, qkv, false);
}

void SharedAttention::attend(const OpContext& context, int64_t layer, const AttentionTensors& t,
                             const Tensor& qkv, bool awaits) const {
  const Layer& turns = of_layer(layer);
  int64_t in = 0;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (awaits) side_->await(static_cast<int>(i));
    place(context, turns[i], turns[i].lists->take, arrived_of(layer), in, qkv, false);
    in += elements_of(turns[i], turns[i].lists->take);
    run(context, AttentionForward{*turns[i].plan, tensors_of(turns[i], t)});
  }
}

void SharedAttention::backward(const OpContext& context, int64_t layer, const AttentionTensors& t,
                               const AttentionGradients& gradients, const Tensor& d_qkv) const {
  const Layer& turns = of_layer(layer);
  int64_t out = 0, in = 0, placed = 0;
  const auto place_of = [&](size_t i) {
    side_->await(static_cast<int>(i));
    place(context, turns[i], turns[i].lists->give, room_.in, placed, d_qkv, true);
    placed += elements_of(turns[i], turns[i].lists->give);
  };
  for (size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    AttentionGradients of_turn = gradients;
    for (Tensor* tensor : {&of_turn.d_o, &of_turn.dq, &of_turn.dk, &of_turn.dv})
      *tensor = heads_of(*tensor, 2, turn.first, turn.step, turn.count);
    run(context, AttentionBackward{*turn.plan, tensors_of(turn, t), of_turn});
    pick(context, turn, turn.lists->take, d_qkv, out);
    exchange(turn, {turn.lists->take, room_.out, out}, {turn.lists->give, room_.in, in}, i);
    out += elements_of(turn, turn.lists->take), in += elements_of(turn, turn.lists->give);
    if (i > 0) place_of(i - 1);
  }
  place_of(turns.size() - 1);
}

}  // namespace longstride
