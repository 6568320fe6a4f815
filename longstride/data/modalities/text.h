// Text, and any other files whose bytes are learnt as they are.
#pragma once

#include "longstride/data/modalities/modality.h"

namespace longstride {

extern const Modality kText;

// The most bytes of text to go on from.
constexpr int64_t kLargestText = int64_t{1} << 30;

}  // namespace longstride
