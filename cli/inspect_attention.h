// `longstride inspect RUN --attention FILE`: what the heads of a trained layer look at.
#pragma once

#include "cli/commands.h"

namespace longstride::cli {

int run_inspect_attention(const InspectOptions& options);

}  // namespace longstride::cli
