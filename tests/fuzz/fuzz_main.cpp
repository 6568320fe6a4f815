// One target under libFuzzer, which has `main`. LONGSTRIDE_FUZZ_TARGET names the target. With LONGSTRIDE_FUZZ_SEEDS the
// target's seeds are written into that folder first.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/target.h"

namespace {

const longstride::fuzz::Target* chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  try {
    const char* name = std::getenv("LONGSTRIDE_FUZZ_TARGET");
    chosen = &longstride::fuzz::find_target(name == nullptr ? "" : name);
    const char* folder = std::getenv("LONGSTRIDE_FUZZ_SEEDS");
    if (folder == nullptr) return 0;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const auto& seed : chosen->seeds()) {
      std::ofstream file(std::string(folder) + "/seed-" + std::to_string(number++), std::ios::binary);
      file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz: %s\n", error.what());
    std::exit(2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chosen->run({data, size});
  return 0;
}
