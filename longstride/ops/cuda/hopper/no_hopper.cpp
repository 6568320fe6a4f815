// A build that has no code for sm_90a.
#include "longstride/ops/cuda/hopper/hopper.h"

namespace longstride::cuda::hopper {

bool usable() { return false; }
bool forward(const Round&, const ForwardCall&, const HeadGroup&) { return false; }
bool backward(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
bool backward_closed(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
bool backward_ordered(const Round&, const BackwardCall&, const HeadGroup&, const Sums&) { return false; }
bool pays_in_order(const ListLengths&, int) { return false; }
bool serves_in_order(DType, int, int) { return false; }

}  // namespace longstride::cuda::hopper
