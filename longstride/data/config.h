// The [data] section: where the bytes come from and how they divide into training, validation and test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/fields.h"

namespace longstride {

// The kinds of data in modalities/table.cpp.
std::vector<std::string> kinds_of_data();
// "text, image or audio"; `remark` comes after the kinds that any bytes can be.
std::string kinds_in_words(std::string_view remark = "");
// The data.kind that is chosen by what the data look like.
constexpr const char* kOpenKind = "auto";

struct DataConfig {
  std::string kind = "text";
  std::string path;
  std::string validation_path;
  std::string test_path;
  std::vector<double> split = {0.9, 0.05, 0.05};
  int64_t image_height = 0;
  int64_t image_width = 0;
  int64_t image_channels = 0;
  int64_t sample_rate = 12000;
  std::string cache;

  // The caller sets the section's name.
  void fields(FieldList& list) {
    std::vector<std::string> kinds = kinds_of_data();
    kinds.insert(kinds.begin(), kOpenKind);
    list.add("kind", kind, kinds_in_words(" (any bytes)") + "; auto = what the data look like").one_of(kinds);
    list.add("path", path, "file, archive or folder to learn from");
    list.add("validation_path", validation_path, "separate validation data; empty = a part of path");
    list.add("test_path", test_path, "separate test data; empty = a part of path");
    list.add("split", split,
             "train, validation, test: fractions if all are at most 1, else bytes (pictures for images)")
        .at_least(0);
    list.add("image_height", image_height, "rows of a picture; 0 = as the data").at_least(0).at_most(1 << 20);
    list.add("image_width", image_width, "columns of a picture; 0 = as the data")
        .at_least(0)
        .at_most(1 << 20);
    list.add("image_channels", image_channels, "1 grey, 3 colour; 0 = as the data").at_least(0).at_most(4);
    list.add("sample_rate", sample_rate, "samples a second that audio is resampled to")
        .at_least(100)
        .at_most(768000);
    list.add("cache", cache,
             "folder for decoded data; empty = $XDG_CACHE_HOME/longstride or ~/.cache/longstride");
  }
};

}  // namespace longstride
