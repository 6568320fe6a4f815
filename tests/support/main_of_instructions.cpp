// The main() of tests that run once for each instruction set: LONGSTRIDE_INSTRUCTIONS limits them as it
// limits the program. The exit status is 77 if the CPU lacks the set; ctest takes that as skipped.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/device/instructions.h"
#include "longstride/ops/cpu/instruction_sets.h"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (const char* name = std::getenv("LONGSTRIDE_INSTRUCTIONS"); name && *name) {
    using namespace longstride;
    const Instructions wanted = parse_instructions(name, "LONGSTRIDE_INSTRUCTIONS");
    const std::vector<Instructions>& offered = instructions_of_cpu();
    if (wanted != Instructions::any && std::find(offered.begin(), offered.end(), wanted) == offered.end()) {
      fmt::print("skipped: this CPU has up to {}\n", name_of(offered.back()));
      return 77;
    }
    cpu::limit_instructions(wanted);
  }
  return RUN_ALL_TESTS();
}
