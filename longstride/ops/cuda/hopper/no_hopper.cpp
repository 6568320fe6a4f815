// A build that has no code for sm_90a.
#include "longstride/ops/cuda/hopper/hopper.h"

namespace longstride::cuda::hopper {

bool usable() { return false; }
bool forward(const Round&, const ForwardCall&, const HeadGroup&) { return false; }
bool backward(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
bool backward_closed(const Round&, const BackwardCall&, const HeadGroup&) { return false; }

}  // namespace longstride::cuda::hopper
