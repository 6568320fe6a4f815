#include "longstride/base/check.h"

#include <cerrno>
#include <cstring>

namespace longstride {

std::string last_system_error() { return std::strerror(errno); }

}  // namespace longstride
