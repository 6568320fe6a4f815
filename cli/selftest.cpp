// `longstride selftest`: compares every op and whole models with the double-precision reference, on the
// user's own machine.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "longstride/base/text.h"
#include "longstride/device/backend.h"
#include "longstride/device/device.h"
#include "longstride/ops/cpu/instruction_sets.h"
#include "longstride/verify/checks.h"

#include "cli/commands.h"
#include "cli/standard_streams.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

using verify::Check;

using verify::CheckGroup;
using verify::kCheckGroups;

void check_names(const std::vector<std::string>& wanted) {
  std::vector<std::string> names;
  for (const CheckGroup& group : kCheckGroups) names.push_back(group.name);
  for (const std::string& name : wanted)
    if (std::ranges::find(names, name) == names.end())
      throw UsageError(
          fmt::format("--only {}: there is no such group of checks, but {}", name, fmt::join(names, ", ")));
}

// The error as a part of the allowed error. Checks that allow no error count only if they fail.
double part_of_allowed(const Check& check) {
  if (check.allowed > 0) return check.error / check.allowed;
  return check.passed() ? 0 : std::numeric_limits<double>::infinity();
}

struct Outcome {
  std::string name;
  std::vector<Check> checks;
  std::string failure;  // the message of an exception that ended the group
  double worst = 0;     // the largest part of the allowed error
  int64_t failed = 0;

  bool passed() const { return failed == 0 && failure.empty() && !checks.empty(); }
};

Outcome run_group(const CheckGroup& group, Device device, verify::Effort effort) {
  Outcome outcome;
  outcome.name = group.name;
  try {
    outcome.checks = group.run(device, effort);
  } catch (const std::exception& error) {
    outcome.failure = error.what();
  }
  for (const Check& check : outcome.checks) {
    outcome.worst = std::max(outcome.worst, part_of_allowed(check));
    outcome.failed += !check.passed();
  }
  return outcome;
}

void print_group(const Outcome& outcome) {
  print_result("{:<14} {:>5} checks   worst {:.2f} of allowed   {}\n", outcome.name, outcome.checks.size(),
               outcome.worst, outcome.passed() ? "ok" : "FAILED");
  if (!outcome.failure.empty()) print_result("  {}\n", outcome.failure);
  if (outcome.checks.empty() && outcome.failure.empty()) print_result("  nothing was checked\n");
  for (const Check& check : outcome.checks)
    if (!check.passed())
      print_result("  {}: error {:.3g}, allowed {:.3g}\n", check.name, check.error, check.allowed);
  flush_results();
}

// JSON has no infinity: an error that is not finite is written as text.
nlohmann::json as_json(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(fmt::format("{}", value));
}

nlohmann::json as_json(const Outcome& outcome) {
  nlohmann::json group = {{"name", outcome.name},       {"checks", outcome.checks.size()},
                          {"failed", outcome.failed},   {"worst_of_allowed", as_json(outcome.worst)},
                          {"passed", outcome.passed()}, {"failures", nlohmann::json::array()}};
  if (!outcome.failure.empty()) group["error"] = outcome.failure;
  for (const Check& check : outcome.checks)
    if (!check.passed())
      group["failures"].push_back(
          {{"name", check.name}, {"error", as_json(check.error)}, {"allowed", as_json(check.allowed)}});
  return group;
}

}  // namespace

int run_selftest(const SelftestOptions& options) {
  check_names(options.only);
  use_instructions(options.instructions, "--instructions");
  const Device device = parse_device(options.device);
  const verify::Effort effort = options.thorough ? verify::Effort::thorough : verify::Effort::quick;
  const std::vector<cpu::InstructionUse> uses = cpu::instructions_in_use();
  if (!options.json) {
    print_result("device         {}{}\n", name_of(device),
                 device.kind == DeviceKind::cpu ? "" : ", " + backend(device).describe(device.index));
    print_result("processor      {}, {} threads\n", describe_cpu(), threads());
    print_result("instructions   {}\n", name_of(instruction_limit()));
    for (const auto& [part, instructions] : uses) print_result("{:<14} {}\n", part, instructions);
  }

  const auto begin = std::chrono::steady_clock::now();
  nlohmann::json groups = nlohmann::json::array();
  int64_t total = 0, failed = 0, failed_groups = 0;
  for (const CheckGroup& group : kCheckGroups) {
    if (!options.only.empty() && std::ranges::find(options.only, group.name) == options.only.end()) continue;
    const Outcome outcome = run_group(group, device, effort);
    if (options.json)
      groups.push_back(as_json(outcome));
    else
      print_group(outcome);
    total += static_cast<int64_t>(outcome.checks.size());
    failed += outcome.failed;
    failed_groups += !outcome.passed();
  }
  const bool passed = failed_groups == 0;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  if (options.json) {
    nlohmann::json instructions = {{"limit", name_of(instruction_limit())}};
    for (const auto& [part, used] : uses) instructions[part] = used;
    const nlohmann::json out = {
        {"passed", passed},
        {"checks", total},
        {"failed", failed},
        {"seconds", seconds},
        {"device", name_of(device)},
        {"gpu", device.kind == DeviceKind::cpu ? "" : backend(device).describe(device.index)},
        {"processor", describe_cpu()},
        {"threads", threads()},
        {"instructions", instructions},
        {"bf16_in_hardware", cpu_has_bf16()},
        {"groups", groups}};
    print_json(out);
  } else {
    print_result("{:<14} {:>5} checks   {} in {:.1f} s\n", "total", total,
                 passed ? "all passed" : fmt::format("{} FAILED in {} groups", failed, failed_groups),
                 seconds);
  }
  return passed ? 0 : 1;
}

}  // namespace longstride::cli
