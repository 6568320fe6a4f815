// What heads look at (eval/attention_weights.h) as a picture: a panel a head, queries down, keys to the right.
#pragma once

#include <cstdint>

#include "longstride/eval/attention_weights.h"
#include "longstride/pattern/picture.h"

namespace longstride {

// White: the future. Grey: what the pattern forbids. Light: allowed and not looked at. The darker a cell, the more of its
// queries' weight it has; the colour goes by the cube root, so that thin lines show. Panels have sides of up to
// `pixels` (16 or more).
Picture picture_of(const LayerWeights& layer, int64_t pixels);

}  // namespace longstride
