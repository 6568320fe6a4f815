// A schedule of patterns as somebody wrote it, parsed once.
#pragma once

#include <memory>
#include <string>

#include "longstride/base/fields.h"
#include "longstride/pattern/pattern.h"

namespace longstride {

// Text that does not parse is kept until the schedule is asked for, so that the caller can say where the
// text was.
class WrittenSchedule final : public TextValue {
 public:
  WrittenSchedule() : WrittenSchedule(std::string()) {}
  // Both convert implicitly, so that a config can be given a pattern as text.
  WrittenSchedule(std::string text) { set_text(std::move(text)); }
  WrittenSchedule(const char* text) : WrittenSchedule(std::string(text)) {}

  const std::string& text() const override { return text_; }
  void set_text(std::string text) override;
  bool empty() const { return text_.empty(); }
  // Throws parse_schedule()'s Error.
  const Schedule& parsed() const;

  friend bool operator==(const WrittenSchedule& a, const WrittenSchedule& b) { return a.text_ == b.text_; }

 private:
  std::string text_;
  std::shared_ptr<const Schedule> schedule_;  // null if it does not parse
  std::string error_;
};

}  // namespace longstride
