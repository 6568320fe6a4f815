// What a disk may hold after the power has gone: of what a program did to the files of a folder, by the
// journal of power_shim.cpp, only what it brought to the disk (fsync) is sure to be there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/reliability/power_journal.h"

namespace longstride::reliability {

struct Record {
  Deed deed;
  uint64_t inode = 0;
  int64_t number = 0;
  std::string path, data;
};

// Throws std::runtime_error for a record that is cut.
std::vector<Record> read_journal(const std::string& path);

// What becomes of all that was not brought to the disk.
enum class Loss {
  nothing,  // all stays, as when the process alone is killed
  all,
  // Names change in the order in which they were changed, up to some change, as a file system with a journal
  // keeps them. Each write to a file stays, is lost, or stays in part.
  in_order,
  // Each change of a name stays or is lost for itself, and each write as above. A rename is one change.
  in_any_order,
};

class Disk {
 public:
  // All that is in the folder now counts as brought to the disk.
  explicit Disk(const std::string& folder);

  // The program does this. Records of files that the disk does not know are of files without a name.
  void play(const Record& record);

  // Makes the folder what the disk holds when the power goes now. Files and folders that were in it from the
  // start keep their times.
  void restore_after(Loss loss, std::mt19937_64& random, const std::string& folder) const;

 private:
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  using Names = std::map<std::string, NodePtr>;
  // A write, or a change of size if `cuts`.
  struct Change {
    int64_t at = 0;
    std::string data;
    bool cuts = false;
  };
  struct Node {
    bool folder = false;
    int64_t id = 0;
    int64_t modified = -1;  // the time in nanoseconds that the file had at the start, -1 for a newer one
    std::string content;    // of a file, on the disk
    std::vector<Change> pending;
    Names now, synced;  // of a folder: as the program sees it, and on the disk
  };
  // Names that change together; a null node removes one.
  struct NameChange {
    struct Part {
      NodePtr folder;
      std::string name;
      NodePtr node;
    };
    std::vector<Part> parts;
  };

  NodePtr add(bool folder);
  NodePtr scan(const std::string& folder);
  NodePtr find(const std::string& path) const;
  std::pair<NodePtr, std::string> place_of(const std::string& path) const;
  void change(NameChange change);
  void sync_folder(const NodePtr& folder);
  static void apply(const Change& change, std::string& content);
  static std::string content_of(const Node& node, Loss loss, std::mt19937_64& random);

  int64_t count_ = 0;
  NodePtr root_;
  std::map<uint64_t, NodePtr> inodes_;
  std::vector<NameChange> changes_;  // not wholly on the disk
};

}  // namespace longstride::reliability
