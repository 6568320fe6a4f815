// Paths as the preloaded libraries see them, found without the C library's own calls on files.
#pragma once

#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace longstride::reliability {

// An absolute path, or an empty one if there is none.
struct Path {
  char text[2 * PATH_MAX] = {};

  explicit Path(int descriptor) { read_descriptor(descriptor); }
  Path(int folder, const char* name) {
    if (name == nullptr) return;
    if (name[0] != '/') {
      if (folder == AT_FDCWD)
        syscall(SYS_getcwd, text, sizeof text);
      else
        read_descriptor(folder);
      std::strncat(text, "/", sizeof text - std::strlen(text) - 1);
    }
    std::strncat(text, name, sizeof text - std::strlen(text) - 1);
  }
  void read_descriptor(int descriptor) {
    char link[64];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    syscall(SYS_readlinkat, AT_FDCWD, link, text, PATH_MAX);
  }
  // The part below the folder `root`; null outside it.
  const char* inside(const char* root) const {
    if (root == nullptr || text[0] == '\0') return nullptr;
    const size_t length = std::strlen(root);
    if (std::strncmp(text, root, length) != 0) return nullptr;
    if (text[length] == '\0') return ".";
    return text[length] == '/' ? text + length + 1 : nullptr;
  }
};

}  // namespace longstride::reliability
