// `longstride init`: a first config for some data.
#include <filesystem>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/data/corpus.h"
#include "longstride/run/choices.h"
#include "longstride/run/run_data.h"
#include "longstride/run/short_config.h"
#include "longstride/train/memory.h"

#include "cli/commands.h"
#include "cli/file_argument.h"
#include "cli/load_config.h"
#include "cli/output_file.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

int run_init(const InitOptions& options) {
  std::string output = options.output;
  if (output.empty()) {
    const std::string stem = fs::path(options.path).lexically_normal().stem().string();
    output = (stem.empty() || stem == "." ? "config" : stem) + ".toml";
  }
  LONGSTRIDE_CHECK(is_utf8(options.path),
                   "{}: a config is UTF-8, and this name is not; give the data a link that is", options.path);
  std::error_code ignored;
  const bool taken = !is_direct_output(output) && fs::exists(output, ignored);
  LONGSTRIDE_CHECK(!taken || options.force,
                   "{} is there already; --force replaces it, --output names another file", output);
  spare_what_is_read(output, "--output", {options.path});
  prepare_output(output, "--output");
  RunConfig config = fast_defaults();
  config.data.path = options.path;
  config.train.minutes = options.minutes;
  override_section(config, options.overrides, "compute");
  use_instructions(config.compute);
  config.check();
  const Device device = parse_device(config.compute.device);
  if (options.gpu_memory > 0 && device.kind == DeviceKind::cpu)
    throw UsageError("--gpu-memory: here the CPU would train; leave it out");
  choose_kind(config.data);
  const Splits splits = open_run_data(config.data, "");
  choose_shape(config, splits);
  if (options.gpu_memory > 0 && training_memory(config).total() > options.gpu_memory) {
    const std::optional<RunConfig> smaller = settings_that_fit(config, options.gpu_memory);
    LONGSTRIDE_CHECK(smaller.has_value(),
                     "--gpu-memory {}: training takes at least more than that; give fewer --minutes",
                     options.gpu_memory);
    config = *smaller;
  }
  const std::string heading = fmt::format(
      "{}\nChosen by 'longstride init' for these data, {} and {} minutes; all else is the fast recipe's.\n"
      "'longstride inspect' tells what it costs, 'longstride train --help' lists all fields.",
      printable_line(splits.train.corpus->description()),
      device.kind == DeviceKind::cpu ? "this machine's CPU" : "its GPU", config.train.minutes);
  const std::string text = short_config(config, heading);
  write_output(output, [&](ByteSink& sink) { sink.write(text); }, {.replace = options.force});
  if (!is_direct_output(output)) say("wrote {}; next: longstride train {}", output, file_argument(output));
  return 0;
}

}  // namespace longstride::cli
