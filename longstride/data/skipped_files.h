// Counts the files that a decoder skips, by kind, to report them once.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "longstride/data/items.h"

namespace longstride::data {

class SkippedFiles {
 public:
  void add(const Item& item);
  int64_t count() const { return count_; }
  const std::string& first() const { return first_; }
  // "skipped 3 files: 2 .txt, 1 .db; the first: a/readme.txt"; empty if there were none.
  std::string remark() const;

 private:
  int64_t count_ = 0;
  std::string first_;
  std::map<std::string, int64_t> kinds_;  // by extension
};

}  // namespace longstride::data
