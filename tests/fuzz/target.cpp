#include "tests/fuzz/target.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <fcntl.h>
#include <unistd.h>

#include "longstride/base/check.h"

namespace longstride::fuzz {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSecret = "the bytes of a file that nobody named: 5f0c91d7";

// One for the process; inputs that are kept name it by a path that all processes share.
std::string secret_folder() { return (fs::temp_directory_path() / "longstride-fuzz-secret").string(); }

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all{kConfigTarget, kPatternTarget, kMetricsTarget,     kPictureTarget,
                                       kSoundTarget,  kArchiveTarget, kSafetensorsTarget, kContainerTarget,
                                       kCoderTarget,  kSessionTarget, kRunTarget};
  return all;
}

const Target& find_target(std::string_view name) {
  std::string names;
  for (const Target& target : targets()) {
    if (target.name == name) return target;
    names += " " + target.name;
  }
  throw std::runtime_error("no target " + std::string(name) + "; there are:" + names);
}

void promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "a promise is broken: %s\n", what);
  std::abort();
}

bool refused_or_done(const std::function<void()>& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    promise(error.what()[0] != '\0', "a refusal says why");
    return false;
  }
}

Playground::Playground() {
  std::string pattern = (fs::temp_directory_path() / "longstride-fuzz-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot create " + pattern);
  folder_ = pattern;
  fs::create_directories(secret_folder());
  // Renamed into place, since other processes read it.
  const std::string temporary = folder_ + "/secret";
  std::ofstream(temporary, std::ios::binary) << kSecret;
  fs::rename(temporary, secret_path());
}

Playground::~Playground() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string Playground::secret_path() { return secret_folder() + "/secret"; }

std::string Playground::put(const std::string& name, std::span<const uint8_t> content) {
  if (name != name_ && !name_.empty()) unlink((folder_ + "/" + name_).c_str());
  name_ = name;
  const std::string path = folder_ + "/" + name;
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  promise(file >= 0, "the input can be written");
  promise(write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size()),
          "the input can be written");
  close(file);
  return path;
}

void Playground::check_untouched() const {
  for (const auto& entry : fs::directory_iterator(folder_))
    promise(entry.path().filename() == name_, "nothing is written beside the input");
  std::ifstream file(secret_path(), std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  promise(content == kSecret, "a file that an input names is not changed");
}

void Playground::check_no_secret(std::span<const uint8_t> bytes, std::span<const uint8_t> input) {
  constexpr size_t kNone = std::string_view::npos;
  promise(text_of(bytes).find(kSecret) == kNone || text_of(input).find(kSecret) != kNone,
          "a file that an input names is not read");
}

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

std::string_view text_of(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace longstride::fuzz
