// The arguments of every op besides its tensors.
//
// Conventions for all ops: tensors of one call are on one device. "=" outputs are overwritten, whatever
// they held (NaN included); "+=" outputs are added to. Wrong shapes or dtypes throw Error before anything
// is written. For the same inputs and number of threads, results are the same bits from run to run.
// `scratch` is used and given back within the call.
#pragma once

#include "longstride/device/memory.h"

namespace longstride {

struct OpContext {
  Device device;
  Arena* scratch = nullptr;
};

}  // namespace longstride
