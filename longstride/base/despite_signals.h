// Calls of the system that a signal can cut short. On some file systems (network ones, those of user
// programs) that holds for open, fsync and the listing of folders too.
#pragma once

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace longstride {

// Calls call() until no signal has cut it short. call returns -1 and sets errno where it fails. Not for
// close: the descriptor is closed even then.
template <class Call>
auto despite_signals(Call call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

// A folder's entries, in no order. Sets `error` if it cannot be listed.
inline std::filesystem::directory_iterator entries_of(const std::filesystem::path& folder,
                                                      std::error_code& error) {
  for (;;) {
    std::filesystem::directory_iterator entries(folder, error);
    if (error != std::errc::interrupted) return entries;
  }
}

}  // namespace longstride
