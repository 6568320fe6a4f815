// Errors and checks. Every failure is an exception that says what was wrong, where, and what to do about it;
// `main` prints it as one line.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#ifndef __CUDACC__
#include <fmt/format.h>
#endif

#include "longstride/base/error.h"

namespace longstride {

// A command line that cannot be understood. Exit code 2; every other Error has 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

// nvcc does not compile fmt's headers as C++20: in .cu files fail() sends its values here to be formatted.
using CheckedValue = std::variant<int64_t, double, std::string>;
[[noreturn]] void fail_with(std::string_view format, std::initializer_list<CheckedValue> values);

// Throws Error with a formatted message.
#ifndef __CUDACC__
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}
#else
template <class T>
CheckedValue checked_value(const T& value) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<int64_t>(value);
  else if constexpr (std::is_floating_point_v<T>)
    return static_cast<double>(value);
  else
    return std::string(value);
}
template <class... Args>
[[noreturn]] void fail(std::string_view format, const Args&... args) {
  fail_with(format, {checked_value(args)...});
}
#endif

// "No space left on device" and the like for the current errno, for messages about files.
std::string last_system_error();

}  // namespace longstride

// LONGSTRIDE_CHECK(batch > 0, "batch is {}, must be positive", batch): the message names the values.
#define LONGSTRIDE_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) [[unlikely]]       \
      ::longstride::fail(__VA_ARGS__);   \
  } while (false)
