// What is there after an archive was unpacked: a later member may replace an earlier one of its name, and
// links may give a member further names.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "longstride/data/unpack.h"

namespace longstride::data {

class MemberPlan {
 public:
  // Reads all entries of the archive. Throws Error as ArchiveReader does, and for encrypted archives.
  MemberPlan(const std::string& path, const Packing& packing);

  // The names under which the bytes of entry `number`, counted from 0, remain, without hidden names.
  std::vector<std::string> names(int64_t number, const Entry& entry) const;
  // "2 members replaced by later ones of their name, 1 link that leads to no member skipped"; empty if there
  // is no remark.
  std::string remark() const;

 private:
  void note_dangling(const std::string& name);

  bool plain_ = true;  // every entry remains, under its own name
  // If not plain: the names of the entries that remain.
  std::unordered_map<int64_t, std::vector<std::string>> names_;
  int64_t replaced_ = 0, dangling_ = 0;
  std::string first_replaced_, first_dangling_, trailing_;
};

}  // namespace longstride::data
