#include "longstride/model/shared_convolution.h"

#include "longstride/base/check.h"
#include "longstride/ops/rows.h"

namespace longstride {

SharedConvolution::SharedConvolution(const ModelConfig& config, int64_t batch, const SequenceRanks& ranks)
    : width_(config.width), ranks_(ranks) {
  const int64_t last = 2 * ranks.parts - 1, length = config.context / (2 * ranks.parts);
  LONGSTRIDE_CHECK(length >= kBefore,
                   "a rank's chunk of {} positions is shorter than the convolution looks back", length);
  const auto rank_of = [&](int64_t chunk) {
    if (chunk < 0 || chunk > last) return -1;
    return ranks.first_rank + static_cast<int>(chunk < ranks.parts ? chunk : last - chunk);
  };
  const RankPositions positions(config.context, batch, ranks);
  for (const RankPositions::Chunk& c : positions.chunks()) {
    const int64_t number = c.first / length;
    chunks_.push_back({c.own, c.count, rank_of(number - 1), rank_of(number + 1)});
    if (chunks_.back().after < 0) continue;
    for (int64_t row = c.own + c.count - kBefore; row < c.own + c.count; ++row)
      last_rows_.push_back(static_cast<int32_t>(row));
  }
}

SharedConvolution::Room SharedConvolution::allocate(DType product, Arena& arena) const {
  const auto chunks = static_cast<int64_t>(chunks_.size());
  const int64_t rows = chunks * (kBefore + chunks_.front().count);
  Room room;
  room.x = arena.allocate(product, {rows, width_});
  room.y = arena.allocate(product, {rows, width_});
  room.arrived = arena.allocate(product, {chunks * kBefore, width_});
  return room;
}

void SharedConvolution::use(Device device, const Room& room) {
  room_ = room;
  const auto count = static_cast<int64_t>(last_rows_.size());
  numbers_ = Buffer(device, count * static_cast<int64_t>(sizeof(int32_t)));
  last_on_device_ = Tensor(numbers_.data(), DType::i32, {count}, device.kind);
  copy(Tensor(last_rows_.data(), DType::i32, {count}), last_on_device_);
}

void SharedConvolution::forward(const OpContext& context, const Tensor& x, const Tensor& weight,
                                const Tensor& y) const {
  const int own = ranks_.first_rank + static_cast<int>(ranks_.index);
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  const Tensor* before = nullptr;  // the last rows of a chunk that is followed by another of this rank
  Tensor last;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    const Tensor rows = x.rows(chunk.own, chunk.own + chunk.count);
    const Tensor ahead = room_.x.rows(padded(i), padded(i) + kBefore);
    copy(rows, room_.x.rows(padded(i) + kBefore, padded(i) + kBefore + chunk.count));
    if (chunk.before < 0)
      fill_zero(ahead);
    else if (chunk.before != own)
      in.push_back({chunk.before, ahead.data, ahead.bytes()});
    else
      copy(*before, ahead);
    last = rows.rows(chunk.count - kBefore, chunk.count);
    before = &last;
    if (chunk.after >= 0 && chunk.after != own) out.push_back({chunk.after, last.data, last.bytes()});
  }
  (*ranks_.devices)->exchange(out, in);
  run(context, CausalConvolutionForward{room_.x, weight, kBefore + chunks_.front().count, room_.y});
  for (size_t i = 0; i < chunks_.size(); ++i)
    copy(room_.y.rows(padded(i) + kBefore, padded(i) + kBefore + chunks_[i].count),
         y.rows(chunks_[i].own, chunks_[i].own + chunks_[i].count));
}

void SharedConvolution::backward(const OpContext& context, const Tensor& dy, const Tensor& weight,
                                 const Tensor& dx, const Tensor& weight_gradient) const {
  const int own = ranks_.first_rank + static_cast<int>(ranks_.index);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    fill_zero(room_.y.rows(padded(i), padded(i) + kBefore));
    copy(dy.rows(chunk.own, chunk.own + chunk.count),
         room_.y.rows(padded(i) + kBefore, padded(i) + kBefore + chunk.count));
  }
  run(context,
      CausalConvolutionBackward{room_.y, weight, kBefore + chunks_.front().count, room_.x, weight_gradient});
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  int64_t at = 0;  // in `arrived`
  Tensor to_own;   // where the next chunk's go, if both are this rank's
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    copy(room_.x.rows(padded(i) + kBefore, padded(i) + kBefore + chunk.count),
         dx.rows(chunk.own, chunk.own + chunk.count));
    const Tensor ahead = room_.x.rows(padded(i), padded(i) + kBefore);
    if (chunk.before == own)
      copy(ahead, to_own);
    else if (chunk.before >= 0)
      out.push_back({chunk.before, ahead.data, ahead.bytes()});
    if (chunk.after < 0) continue;
    const Tensor place = room_.arrived.rows(at, at + kBefore);
    at += kBefore;
    if (chunk.after == own)
      to_own = place;
    else
      in.push_back({chunk.after, place.data, place.bytes()});
  }
  (*ranks_.devices)->exchange(out, in);
  run(context, PlaceRows{room_.arrived.rows(0, at), last_on_device_, dx, true});
}

}  // namespace longstride
