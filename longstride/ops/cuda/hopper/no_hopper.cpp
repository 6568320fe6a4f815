// A build that has no code for sm_90a.
#include "longstride/ops/cuda/hopper/hopper.h"

namespace longstride::cuda::hopper {

bool usable() { return false; }
bool forward(const Round&, const ForwardCall&, const HeadGroup&) { return false; }
bool backward(const Round&, const BackwardCall&, const HeadGroup&) { return false; }
int64_t sums_width(int, int) { return 0; }
bool backward_long(const Round&, const LongCall&, const HeadGroup&) { return false; }
void round_sums(const LongCall&, const HeadGroup&) {}
bool backward_closed(const Round&, const BackwardCall&, const HeadGroup&) { return false; }

}  // namespace longstride::cuda::hopper
