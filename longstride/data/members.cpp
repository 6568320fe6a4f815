#include "longstride/data/members.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"
#include "longstride/data/files.h"
#include "longstride/data/items.h"

namespace longstride::data {

namespace {

constexpr int kMostLinks = 40;  // in a row, as Linux has it

// The place of a member: "./a//b" -> "a/b".
std::string place_of(const std::string& name) {
  std::string place;
  for (const std::string& part : split(name, '/')) {
    if (part.empty() || part == ".") continue;
    if (!place.empty()) place += '/';
    place += part;
  }
  return place;
}

// What is at a place: the bytes of an entry, or a link to another place.
struct Node {
  int64_t entry = -1;
  std::string target;  // of a symbolic link
};
using Nodes = std::unordered_map<std::string, Node>;

// The place to which a symbolic link finally leads; nothing if it leads out of the archive or in circles.
std::optional<std::string> follow(const Nodes& nodes, const std::string& link) {
  std::vector<std::string> open;  // parts still to be walked, the next one last
  const auto push = [&](const std::string& path) {
    const std::vector<std::string> parts = split(path, '/');
    open.insert(open.end(), parts.rbegin(), parts.rend());
  };
  push(link);
  std::string place;
  for (int links = 0; !open.empty();) {
    const std::string part = std::exchange(open.back(), {});
    open.pop_back();
    if (part.empty() || part == ".") continue;
    const std::string folder = place;
    if (part == "..") {
      if (place.empty()) return std::nullopt;
      const size_t slash = place.find_last_of('/');
      place.resize(slash == std::string::npos ? 0 : slash);
      continue;
    }
    if (!place.empty()) place += '/';
    place += part;
    const auto node = nodes.find(place);
    if (node == nodes.end() || node->second.target.empty()) continue;
    if (++links > kMostLinks || node->second.target.starts_with('/')) return std::nullopt;
    place = folder;
    push(node->second.target);
  }
  return place;
}

// Those of these places that have something below them.
std::unordered_set<std::string> folders_among(const Nodes& nodes,
                                              const std::unordered_set<std::string>& places) {
  std::unordered_set<std::string> folders;
  if (places.empty()) return folders;
  for (const auto& [place, node] : nodes)
    for (size_t slash = place.find('/'); slash != std::string::npos; slash = place.find('/', slash + 1))
      if (const auto found = places.find(place.substr(0, slash)); found != places.end())
        folders.insert(*found);
  return folders;
}

}  // namespace

MemberPlan::MemberPlan(const std::string& path, const Packing& packing) {
  ArchiveReader reader(path, packing);
  Nodes nodes;
  std::unordered_set<std::string> links;
  int64_t number = 0;
  for (; const std::optional<Entry> entry = reader.next(); ++number) {
    if (entry->kind == Entry::Kind::folder) continue;
    const std::string place = place_of(entry->name);
    const bool hidden = is_hidden(place);
    LONGSTRIDE_CHECK(!entry->encrypted || hidden,
                     "cannot unpack {}: {} is encrypted; unpack it with its password and give the folder",
                     path, printable_line(entry->name));
    Node node;
    if (entry->kind == Entry::Kind::file) node.entry = number;
    if (entry->kind == Entry::Kind::symbolic_link) node.target = entry->target;
    if (entry->kind == Entry::Kind::hard_link) {
      const auto target = nodes.find(place_of(entry->target));
      if (target == nodes.end()) {
        if (!hidden) note_dangling(entry->name);
        continue;
      }
      node = target->second;
    }
    plain_ = plain_ && entry->kind == Entry::Kind::file;
    if (node.target.empty())
      links.erase(place);
    else
      links.insert(place);
    const auto [at, is_new] = nodes.try_emplace(place, node);
    if (is_new) continue;
    plain_ = false;
    // A link to the very bytes that are there already changes nothing.
    if (!hidden && (at->second.entry != node.entry || at->second.target != node.target) && replaced_++ == 0)
      first_replaced_ = entry->name;
    at->second = node;
  }
  trailing_ = reader.trailing_remark();
  if (plain_) return;

  std::unordered_set<std::string> leads_to_no_file;
  std::vector<std::pair<std::string, std::string>> unresolved;
  for (const auto& [place, node] : nodes) {
    int64_t entry = node.entry;
    if (!node.target.empty()) {
      const std::optional<std::string> end = follow(nodes, place);
      const auto found = end ? nodes.find(*end) : nodes.end();
      entry = found == nodes.end() ? -1 : found->second.entry;
      if (entry < 0 && !is_hidden(place)) {
        if (end) leads_to_no_file.insert(*end);
        unresolved.emplace_back(place, end.value_or(""));
      }
    }
    if (entry >= 0 && !is_hidden(place)) names_[entry].push_back(place);
  }
  for (auto& [entry, names] : names_) std::sort(names.begin(), names.end());
  // Links to folders are not followed, as in a folder. Other links that lead nowhere are reported.
  const std::unordered_set<std::string> folders = folders_among(nodes, leads_to_no_file);
  std::sort(unresolved.begin(), unresolved.end());
  for (const auto& [place, end] : unresolved)
    if (!folders.contains(end)) note_dangling(place);
}

void MemberPlan::note_dangling(const std::string& name) {
  if (dangling_++ == 0) first_dangling_ = name;
}

std::vector<std::string> MemberPlan::names(int64_t number, const Entry& entry) const {
  if (plain_) {
    const std::string place = place_of(entry.name);
    return is_hidden(place) ? std::vector<std::string>{} : std::vector{place};
  }
  const auto found = names_.find(number);
  return found == names_.end() ? std::vector<std::string>{} : found->second;
}

std::string MemberPlan::remark() const {
  std::string replaced, dangling;
  if (replaced_ > 0)
    replaced =
        fmt::format("{} member{} replaced by later ones of the same name ({}{})", replaced_,
                    replaced_ == 1 ? "" : "s", printable_line(first_replaced_), replaced_ > 1 ? ", ..." : "");
  if (dangling_ > 0)
    dangling = fmt::format("{} link{} to no member skipped ({}{})", dangling_, dangling_ == 1 ? "" : "s",
                           printable_line(first_dangling_), dangling_ > 1 ? ", ..." : "");
  return join_remarks({replaced, dangling, trailing_});
}

}  // namespace longstride::data
