#include "longstride/train/rank_log.h"

#include <ctime>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include <fmt/chrono.h>

#include "longstride/base/text.h"
#include "longstride/device/memory.h"

namespace longstride {

namespace fs = std::filesystem;

void RankLog::write(const std::string& line) {
  waiting_ += fmt::format("{:%Y-%m-%dT%H:%M:%S}Z {}\n", fmt::gmtime(std::time(nullptr)), line);
  std::error_code none;
  if (!has_run_ || !fs::is_directory(run_, none)) return;
  const fs::path folder = fs::path(run_) / "ranks";
  fs::create_directory(folder, none);
  std::ofstream file(folder / fmt::format("rank-{}.log", rank_), std::ios::app);
  file << waiting_;
  waiting_.clear();
}

void RankLog::step(int64_t step, int64_t every) {
  if (steps_++ == 0) {  // the first is slow and says nothing of the others
    has_run_ = true;
    since_ = Clock::now();
    write(fmt::format("step {}", step));
    return;
  }
  if (every <= 0 || step % every != 0) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - since_).count();
  write(fmt::format("step {}: {:.1f} ms a step, {} resident", step,
                    1000 * seconds / static_cast<double>(steps_ - 1), human_bytes(resident_memory())));
  steps_ = 1;
  since_ = Clock::now();
}

}  // namespace longstride
