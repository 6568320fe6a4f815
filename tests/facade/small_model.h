// A small model that counts, trained once for all tests of a process.
#pragma once

#include <string>
#include <vector>

#include <longstride/longstride.h>

namespace longstride {

inline std::string counting_text(int numbers) {
  std::string text;
  for (int i = 0; i < numbers; ++i) text += std::to_string(i % 50) + ' ';
  return text;
}

inline std::vector<std::string> small_settings(const std::vector<std::string>& more = {}) {
  std::vector<std::string> settings{"model.context=64", "model.layers=2",           "model.heads=2",
                                    "model.width=32",   "model.pattern=fixed:16,4", "train.steps=40",
                                    "train.batch=4",    "compute.device=cpu",       "compute.precision=f32"};
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

inline Model train_small(const std::string& run = "", const std::vector<std::string>& more = {}) {
  TrainOptions options;
  options.settings = small_settings(more);
  options.run = run;
  const std::string text = counting_text(2000);
  return train(bytes_of(text), options);
}

}  // namespace longstride
