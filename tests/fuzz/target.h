// Inputs against one reader each. The same targets run under libFuzzer (make fuzz), and with their seeds, what
// was found before, and some changed inputs in the unit tests.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longstride::fuzz {

using Bytes = std::vector<uint8_t>;

struct Target {
  std::string name;
  // Inputs that are right, and some that once were not refused. Made by code, so that the tree need not hold them.
  std::vector<Bytes> (*seeds)();
  // Gives the input to the reader. The reader may throw Error; whatever else it throws, or breaks, is a finding.
  void (*run)(std::span<const uint8_t> input);
  size_t most_bytes = 4096;  // of an input
};

// For the names of tests.
inline void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

// All targets, in the order of the documentation.
const std::vector<Target>& targets();
// Throws std::runtime_error naming the targets.
const Target& find_target(std::string_view name);

// Ends the process, with `what`, if a promise is broken. Not an exception, since readers may catch those.
void promise(bool kept, const char* what);

// Calls the action; an Error, which must have a message, is a refusal. True if nothing was refused.
bool refused_or_done(const std::function<void()>& action);

// A folder that lives as long as the process, with one input file at a time and, beside it, a file that no
// reader may touch.
class Playground {
 public:
  Playground();
  ~Playground();
  Playground(const Playground&) = delete;
  Playground& operator=(const Playground&) = delete;

  // Writes the input under a name and returns the path. The file that was there before is gone.
  std::string put(const std::string& name, std::span<const uint8_t> content);
  const std::string& folder() const { return folder_; }
  // The folder outside, which inputs may name.
  static std::string secret_path();
  // Fails if something but the input appeared, or the secret is no longer what it was.
  void check_untouched() const;
  // Fails if the bytes hold the secret, and the input, into which libFuzzer copies what it sees compared, does not.
  static void check_no_secret(std::span<const uint8_t> bytes, std::span<const uint8_t> input);

 private:
  std::string folder_, name_;
};

Bytes bytes_of(std::string_view text);
std::string_view text_of(std::span<const uint8_t> bytes);

// The targets, by file.
extern const Target kConfigTarget, kPatternTarget, kMetricsTarget;
extern const Target kPictureTarget, kSoundTarget, kArchiveTarget;
extern const Target kSafetensorsTarget, kContainerTarget, kCoderTarget, kSessionTarget, kRunTarget;

}  // namespace longstride::fuzz
