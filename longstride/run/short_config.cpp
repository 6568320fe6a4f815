#include "longstride/run/short_config.h"

#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/text.h"

namespace longstride {

namespace {

// In the order of the file, with the words of a newcomer.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kFields{
    {{"data.kind", "text (any bytes), image or audio"},
     {"data.path", "file, archive or folder to learn from"},
     {"model.context", "bytes that the model sees at once"},
     {"model.layers", "blocks; more learn more and take longer, and so does the width"},
     {"model.heads", "of attention; must divide the width"},
     {"model.width", "channels of a position"},
     {"model.pattern", "which earlier bytes a byte may look at"},
     {"train.minutes", "training ends when this time is over,"},
     {"train.epochs", "or when the data were seen so often, whichever comes first"},
     {"train.batch", "sequences of the context's length in a step"},
     {"train.micro_batch", "sequences computed at a time; fewer take less memory; 0 = the whole batch"}}};

}  // namespace

std::string short_config(RunConfig config, const std::string& heading) {
  std::string text, section;
  for (const std::string& line : split(heading, '\n')) text += fmt::format("# {}\n", line);
  const FieldList fields = config.fields();
  const auto write = [&](std::string_view key, std::string_view help) {
    const Field& field = fields.find(std::string(key), "the short config");
    if (field.section != section) text += fmt::format("\n[{}]\n", field.section);
    section = field.section;
    text += fmt::format("{} = {}  # {}\n", field.name, field.value_as_toml(), help);
  };
  for (const auto& [key, help] : kFields) {
    if (key == "train.micro_batch" && config.train.micro_batch == 0) continue;
    write(key, help);
  }
  if (config.train.activations == "recompute" || config.train.activations == "offload")
    write("train.activations", "takes less memory than keep, and more time");
  if (config.compute.device != "auto") write("compute.device", "cpu, cuda or auto");
  return text;
}

}  // namespace longstride
