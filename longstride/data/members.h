// What an archive leaves if it is unpacked: a member may be replaced by a later one of its name, and be known
// by further names through links.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "longstride/data/unpack.h"

namespace longstride::data {

class MemberPlan {
 public:
  // Reads the entries of the archive, to its end. Throws Error as ArchiveReader does, and for encrypted ones.
  MemberPlan(const std::string& path, const Packing& packing);

  // The names, hidden ones left out, under which the bytes of entry `number`, counted from 0, remain.
  std::vector<std::string> names(int64_t number, const Entry& entry) const;
  // "2 members replaced by later ones of their name, 1 link that leads to no member skipped"; empty if there
  // is nothing to say.
  std::string remark() const;

 private:
  void note_dangling(const std::string& name);

  bool plain_ = true;  // every entry remains, under its own name
  // Otherwise the names of the entries that remain.
  std::unordered_map<int64_t, std::vector<std::string>> names_;
  int64_t replaced_ = 0, dangling_ = 0;
  std::string first_replaced_, first_dangling_, trailing_;
};

}  // namespace longstride::data
