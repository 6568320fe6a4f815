// What every op is given besides its tensors.
//
// Conventions for all ops: tensors of one call lie on one device. "=" outputs are overwritten whatever they
// held (NaN included), "+=" outputs are added to. Wrong shapes or dtypes throw Error before anything is
// written. Results are the same bits from run to run for the same inputs and number of threads. `scratch` is
// used and given back within the call.
#pragma once

#include "longstride/device/memory.h"

namespace longstride {

struct OpContext {
  Device device;
  Arena* scratch = nullptr;
};

}  // namespace longstride
