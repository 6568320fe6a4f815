#include "longstride/base/check.h"

#include <cerrno>
#include <cstring>

#include <fmt/args.h>

namespace longstride {

std::string last_system_error() { return std::strerror(errno); }

void fail_with(std::string_view format, std::initializer_list<CheckedValue> values) {
  fmt::dynamic_format_arg_store<fmt::format_context> arguments;
  for (const CheckedValue& value : values)
    std::visit([&](const auto& held) { arguments.push_back(held); }, value);
  throw Error(fmt::vformat(format, arguments));
}

}  // namespace longstride
