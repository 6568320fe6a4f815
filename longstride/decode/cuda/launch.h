// How the stages of a step are started (launch.cu), for the host code of steps.cpp.
#pragma once

#include "longstride/base/dtype.h"
#include "longstride/decode/cuda/args.h"

namespace longstride::cuda::decode {

// The most sequences for which a persistent kernel can run.
int most_fused();

// Blocks of a persistent kernel: as many as run at once; 0 if this GPU cannot run one for these sequences.
int persistent_blocks(DType product, const Args& args);
// One kernel: prepares, then goes `steps` steps, each with the drawing of bytes at its end if `draws`.
void launch_persistent(DType product, const Args& args, int blocks, int steps, bool draws);

// A kernel a stage: preparation alone, and one step.
void launch_prepare(DType product, const Args& args);
void launch_stages(DType product, const Args& args, bool draws);

}  // namespace longstride::cuda::decode
