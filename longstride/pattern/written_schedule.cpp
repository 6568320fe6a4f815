#include "longstride/pattern/written_schedule.h"

#include <utility>

#include "longstride/base/check.h"

namespace longstride {

void WrittenSchedule::set_text(std::string text) {
  text_ = std::move(text);
  schedule_.reset();
  try {
    schedule_ = std::make_shared<const Schedule>(parse_schedule(text_));
  } catch (const Error& error) {
    error_ = error.what();
  }
}

const Schedule& WrittenSchedule::parsed() const {
  if (schedule_ == nullptr) throw Error(error_);
  return *schedule_;
}

}  // namespace longstride
