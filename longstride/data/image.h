// Pictures of one shape from CIFAR-10 binary batches, PNG and JPEG files, IDX (MNIST) and NPY arrays.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "longstride/data/cache.h"
#include "longstride/data/corpus.h"
#include "longstride/data/items.h"

namespace longstride::data {

// Passes the pixels of every picture in `files` to `sink`, row by row with the channel fastest, and returns
// their shape. Decoded::encoding is 0 if no channels had to be converted for `wanted`, else 1. Zeros in
// `wanted` are taken from the first picture. In a folder or an archive, files of other kinds are skipped.
// `mark` is called before the bytes of each file. Throws Error for damaged files, pictures of another shape,
// and if there is no picture at all.
Decoded decode_images(const std::vector<SourceFile>& files, const ImageShape& wanted, const DecodeSink& sink,
                      const ItemMark& mark);

}  // namespace longstride::data
