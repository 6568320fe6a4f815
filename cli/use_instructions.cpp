#include "cli/use_instructions.h"

#include <cstdlib>

#include <fmt/format.h>

#include "longstride/base/say.h"
#include "longstride/device/backend.h"
#include "longstride/device/instructions.h"
#include "longstride/ops/cpu/instruction_sets.h"

namespace longstride::cli {

void use_instructions(const std::string& setting, const std::string& where) {
  constexpr const char* kVariable = "LONGSTRIDE_INSTRUCTIONS";
  const auto use = [](const std::string& name, const std::string& from) {
    const Instructions wanted = parse_instructions(name, from);
    check_offered(wanted, from, instructions_of_cpu());
    cpu::limit_instructions(wanted);
  };
  const char* environment = std::getenv(kVariable);
  if (setting != name_of(Instructions::any))
    use(setting, where);
  else if (environment && *environment)
    use(environment, kVariable);
}

void use_instructions(const ComputeConfig& compute) {
  use_instructions(compute.instructions, "compute.instructions");
}

void note_slow_cpu(Device device) {
  if (device.kind != DeviceKind::cpu || may_use(Instructions::avx2) || may_use(Instructions::neon)) return;
  say("note: no AVX2 here, the CPU backend runs its {} path and is slow",
      may_use(Instructions::sse4) ? "SSE4" : "generic");
}

}  // namespace longstride::cli
