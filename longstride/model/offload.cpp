#include "longstride/model/offload.h"

#include <algorithm>

namespace longstride {

int64_t OffloadedInputs::bytes(int64_t layers, int64_t input_bytes) {
  return std::max<int64_t>(0, layers + 1 - kResident) * input_bytes;
}

OffloadedInputs::OffloadedInputs(int64_t layers, std::vector<Tensor> streams)
    : layers_(layers),
      streams_(std::move(streams)),
      waiting_(streams_.front().device, bytes(layers, streams_.front().bytes())),
      side_(backend(streams_.front().device).side_stream(static_cast<int>(layers))) {}

void* OffloadedInputs::place(int64_t layer) const {
  return static_cast<char*>(waiting_.data()) + layer * streams_.front().bytes();
}

void OffloadedInputs::forward(int64_t layer) {
  const Tensor& input = streams_[layer % streams_.size()];
  if (leaves(layer)) {
    side_->follow();
    side_->copy(place(layer), input.data, input.bytes());
    side_->mark(static_cast<int>(layer));
  }
  // The output takes the place of the input of two layers before.
  if (leaves(layer - 2)) side_->await(static_cast<int>(layer - 2));
}

void OffloadedInputs::backward(int64_t layer) {
  if (leaves(layer)) side_->await(static_cast<int>(layer));
  const int64_t next = layer - 1;
  if (!leaves(next)) return;
  const Tensor& input = streams_[next % streams_.size()];
  side_->follow();
  side_->copy(input.data, place(next), input.bytes());
  side_->mark(static_cast<int>(next));
}

}  // namespace longstride
