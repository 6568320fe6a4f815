// The exception of the library. Installed, since C++ programs catch it: it includes nothing of ours.
#pragma once

#include <stdexcept>

namespace longstride {

// Something in the input, the files or the machine that the user can put right: what() says what was wrong,
// where, and what to do about it.
class [[gnu::visibility("default")]] Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace longstride
