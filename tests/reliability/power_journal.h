// What power_shim.cpp writes down and disk.cpp reads: one record for each thing that the program did to files.
#pragma once

#include <cstdint>

namespace longstride::reliability {

enum class Deed : uint32_t {
  open =
      1,  // for writing, or so that it is created; `path` leads to the file `inode`, `number` are the flags
  write = 2,     // `data` to the file `inode` at the offset `number`
  truncate = 3,  // the file `inode` to `number` bytes
  sync = 4,      // the file `inode`; a folder is told by its `path`, and `number` is 1
  rename = 5,    // `path` to `data`; `number` are the flags of renameat2
  link = 6,      // `path` gets the second name `data`
  mkdir = 7,     // the folder `path`
  remove = 8,    // the name `path`
};

// Followed by the bytes of the path and those of the data. Paths are below the folder that is watched.
struct RecordHeader {
  Deed deed;
  uint32_t path_bytes;
  uint64_t inode;
  int64_t number;
  uint64_t data_bytes;
};

}  // namespace longstride::reliability
