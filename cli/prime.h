// What a sample goes on from: the beginning that the user gives, as bytes that the model understands.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"
#include "longstride/sample/generate.h"

#include "cli/commands.h"

namespace longstride::cli {

// The shape of the pictures that a run paints: from its configuration, else from its data, else from three
// position axes. Throws Error if none of them tells, or if a picture has not model.context bytes.
ImageShape picture_shape(const RunConfig& config);

// The bytes that options.prime, prime_fraction and prime_seconds name, for samples of `length` bytes; empty
// without a prime. A prime that leaves the model nothing to draw, or is longer than the context, is cut to
// its end: as much as `windows` keep of the past, or half of a sample without a second window; a line on
// standard error says so. `shape` matters for pictures. Throws Error or UsageError.
std::vector<uint8_t> load_prime(const SampleOptions& options, const RunConfig& config, int64_t length,
                                const Windows& windows, const ImageShape& shape);

}  // namespace longstride::cli
