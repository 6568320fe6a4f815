// A build that has no code for sm_90a.
#include "longstride/ops/cuda/hopper/hopper.h"
#include "longstride/ops/cuda/hopper/newton_schulz.h"

namespace longstride::cuda::hopper {

bool usable() { return false; }
bool forward(const Round&, const ForwardCall&, const HeadGroup&) { return false; }
bool backward(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
bool backward_closed(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
bool backward_ordered(const Round&, const BackwardCall&, const HeadGroup&, const Sums&) { return false; }
bool pays_in_order(const ListLengths&, int) { return false; }
bool serves_in_order(DType, int, int) { return false; }
bool serves_newton_schulz(DType, int64_t, int64_t) { return false; }
void newton_schulz(std::span<const Polynomial>, DType, std::span<OrthogonalBatch>, int*) {}

}  // namespace longstride::cuda::hopper
