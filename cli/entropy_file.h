// The file of `eval --entropy`.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/data/corpus.h"
#include "longstride/model/transformer.h"

namespace longstride::cli {

// Throws UsageError or Error if `path` is no .csv or .html that can be written.
void check_entropy_file(const std::string& path);

// Writes the bits of the first `bytes` of `segment`, read with `min_context`; of pictures only whole ones.
// `title` heads a heat map. Throws Error.
void write_entropy_file(const std::string& path, Transformer& model, const ModelParameters& parameters,
                        const Segment& segment, int64_t bytes, int64_t min_context, const std::string& title);

}  // namespace longstride::cli
