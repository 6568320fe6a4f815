#include "tests/reliability/disk.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

namespace longstride::reliability {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kBillion = 1'000'000'000;

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int64_t time_of(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) != 0 ? -1 : status.st_mtim.tv_sec * kBillion + status.st_mtim.tv_nsec;
}

void set_time(const std::string& path, int64_t time) {
  if (time < 0) return;
  const timespec both[] = {{time / kBillion, time % kBillion}, {time / kBillion, time % kBillion}};
  utimensat(AT_FDCWD, path.c_str(), both, 0);
}

bool is_half(std::mt19937_64& random) { return random() % 2 == 0; }

}  // namespace

std::vector<Record> read_journal(const std::string& path) {
  const std::string text = read_all(path);
  std::vector<Record> records;
  for (size_t at = 0; at < text.size();) {
    RecordHeader header{};
    if (text.size() - at < sizeof header) throw std::runtime_error("the journal ends within a record");
    std::memcpy(&header, text.data() + at, sizeof header);
    at += sizeof header;
    if (text.size() - at < header.path_bytes + header.data_bytes)
      throw std::runtime_error("the journal ends within a record");
    records.push_back({header.deed, header.inode, header.number, text.substr(at, header.path_bytes),
                       text.substr(at + header.path_bytes, header.data_bytes)});
    at += header.path_bytes + header.data_bytes;
  }
  return records;
}

Disk::Disk(const std::string& folder) { root_ = scan(folder); }

Disk::NodePtr Disk::add(bool folder) {
  auto node = std::make_shared<Node>();
  node->folder = folder;
  node->id = count_++;
  return node;
}

Disk::NodePtr Disk::scan(const std::string& folder) {
  const NodePtr found = add(true);
  found->modified = time_of(folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    NodePtr node;
    if (entry.is_directory()) {
      node = scan(path);
    } else {
      struct stat status {};
      stat(path.c_str(), &status);
      NodePtr& same = inodes_[status.st_ino];
      if (!same) {
        same = add(false);
        same->content = read_all(path);
        same->modified = time_of(path);
      }
      node = same;
    }
    found->now[entry.path().filename().string()] = node;
  }
  found->synced = found->now;
  return found;
}

std::pair<Disk::NodePtr, std::string> Disk::place_of(const std::string& path) const {
  NodePtr folder = root_;
  const fs::path normal = fs::path(path).lexically_normal();
  for (const fs::path& part : normal.parent_path()) {
    if (part == ".") continue;
    const auto next = folder->now.find(part.string());
    if (next == folder->now.end()) return {nullptr, ""};
    folder = next->second;
  }
  return {folder, normal.filename().string()};
}

Disk::NodePtr Disk::find(const std::string& path) const {
  if (path == ".") return root_;
  const auto [folder, name] = place_of(path);
  if (!folder) return nullptr;
  const auto found = folder->now.find(name);
  return found == folder->now.end() ? nullptr : found->second;
}

void Disk::change(NameChange change) {
  for (const NameChange::Part& part : change.parts) {
    if (!part.folder) throw std::runtime_error("the journal names a folder that is not there: " + part.name);
    if (part.node)
      part.folder->now[part.name] = part.node;
    else
      part.folder->now.erase(part.name);
  }
  changes_.push_back(std::move(change));
}

// Brings the names of a folder to the disk, and of a rename between two folders both parts, which file systems
// do not tear.
void Disk::sync_folder(const NodePtr& folder) {
  std::erase_if(changes_, [&](const NameChange& change) {
    const bool ours = std::any_of(change.parts.begin(), change.parts.end(),
                                  [&](const NameChange::Part& part) { return part.folder == folder; });
    if (!ours) return false;
    for (const NameChange::Part& part : change.parts) {
      if (part.node)
        part.folder->synced[part.name] = part.node;
      else
        part.folder->synced.erase(part.name);
    }
    return true;
  });
}

void Disk::play(const Record& record) {
  const auto file = [&]() -> NodePtr {
    const auto found = inodes_.find(record.inode);
    return found == inodes_.end() ? nullptr : found->second;
  };
  switch (record.deed) {
    case Deed::open: {
      NodePtr node = find(record.path);
      if (!node) {
        node = add(false);
        const auto [folder, name] = place_of(record.path);
        change({{{folder, name, node}}});
      } else if ((record.number & O_TRUNC) != 0) {
        node->pending.push_back({0, "", true});
      }
      inodes_[record.inode] = node;
      break;
    }
    case Deed::write:
      if (const NodePtr node = file()) node->pending.push_back({record.number, record.data, false});
      break;
    case Deed::truncate:
      if (const NodePtr node = file()) node->pending.push_back({record.number, "", true});
      break;
    case Deed::sync:
      if (record.number != 0) {
        const NodePtr folder = find(record.path);
        if (!folder) throw std::runtime_error("a folder that is not there is synced: " + record.path);
        sync_folder(folder);
      } else if (const NodePtr node = file()) {
        for (const Change& each : node->pending) apply(each, node->content);
        node->pending.clear();
      }
      break;
    case Deed::rename: {
      const auto [from, old_name] = place_of(record.path);
      const auto [to, new_name] = place_of(record.data);
      const NodePtr node = find(record.path), other = find(record.data);
      if (node == other) break;  // two names of one file stay
      const bool exchange = (record.number & RENAME_EXCHANGE) != 0;
      change({{{from, old_name, exchange ? other : nullptr}, {to, new_name, node}}});
      break;
    }
    case Deed::link: {
      const auto [to, name] = place_of(record.data);
      change({{{to, name, find(record.path)}}});
      break;
    }
    case Deed::mkdir: {
      const auto [folder, name] = place_of(record.path);
      change({{{folder, name, add(true)}}});
      break;
    }
    case Deed::remove: {
      const auto [folder, name] = place_of(record.path);
      if (folder && folder->now.contains(name)) change({{{folder, name, nullptr}}});
      break;
    }
  }
}

void Disk::apply(const Change& change, std::string& content) {
  const auto at = static_cast<size_t>(change.at);
  if (change.cuts) return content.resize(at);
  if (content.size() < at + change.data.size()) content.resize(at + change.data.size());
  content.replace(at, change.data.size(), change.data);
}

std::string Disk::content_of(const Node& node, Loss loss, std::mt19937_64& random) {
  std::string content = node.content;
  if (loss == Loss::all) return content;
  for (Change change : node.pending) {
    const uint64_t fate = loss == Loss::nothing ? 0 : random() % 3;
    if (fate == 1) continue;
    if (fate == 2) change.data.resize(random() % (change.data.size() + 1));
    apply(change, content);
  }
  return content;
}

void Disk::restore_after(Loss loss, std::mt19937_64& random, const std::string& folder) const {
  // The names on the disk, and those changes that happen to be there too.
  std::map<int64_t, Names> names;
  const std::function<Names&(const NodePtr&)> names_of = [&](const NodePtr& node) -> Names& {
    return names.try_emplace(node->id, node->synced).first->second;
  };
  const size_t upto = loss == Loss::in_order ? random() % (changes_.size() + 1) : changes_.size();
  for (size_t i = 0; i < upto; ++i) {
    if (loss == Loss::all || (loss == Loss::in_any_order && is_half(random))) continue;
    for (const NameChange::Part& part : changes_[i].parts) {
      if (part.node)
        names_of(part.folder)[part.name] = part.node;
      else
        names_of(part.folder).erase(part.name);
    }
  }

  fs::remove_all(folder);
  std::map<int64_t, std::string> written;
  std::set<int64_t> above;  // a lost rename can leave a folder within itself
  const std::function<void(const NodePtr&, const std::string&)> restore = [&](const NodePtr& node,
                                                                              const std::string& path) {
    if (node->folder) {
      if (!above.insert(node->id).second) return;
      fs::create_directory(path);
      for (const auto& [name, child] : names_of(node)) restore(child, path + "/" + name);
      above.erase(node->id);
      set_time(path, node->modified);
    } else if (const auto first = written.find(node->id); first != written.end()) {
      fs::create_hard_link(first->second, path);
    } else {
      std::ofstream(path, std::ios::binary) << content_of(*node, loss, random);
      written[node->id] = path;
      if (node->pending.empty()) set_time(path, node->modified);
    }
  };
  restore(root_, folder);
}

}  // namespace longstride::reliability
