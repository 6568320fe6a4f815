// Errors and checks. Every failure is an exception that says what was wrong, where, and what to do about it;
// `main` prints it as one line.
#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace longstride {

// Something in the input, the files or the machine that the user can put right. Exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A command line that cannot be understood. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// "No space left on device" and the like for the current errno, for messages about files.
std::string last_system_error();

}  // namespace longstride

// LONGSTRIDE_CHECK(batch > 0, "batch is {}, must be positive", batch): the message names the values.
#define LONGSTRIDE_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) [[unlikely]]       \
      ::longstride::fail(__VA_ARGS__);   \
  } while (false)
