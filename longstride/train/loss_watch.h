// Tells a run that diverges from the noise of healthy losses.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace longstride {

class LossWatch {
 public:
  struct Rise {
    double from = 0, to = 0;  // bits per byte
  };
  // Takes the loss of the next step, in bits per byte. The run diverges if the mean of the last five losses is
  // above 8 bits, those of uniform bytes, or above the lowest mean of twenty losses so far by more than a bit
  // and by more than the noise. Reports it once.
  std::optional<Rise> add(double bits);
  // Forgets all losses so far, because those from here on cannot be compared with them.
  void restart();

 private:
  std::deque<double> losses_;  // the newest last
  double lowest_ = 0;          // mean of twenty
  double spread_ = 0;          // the largest standard deviation of the noise lately
  bool has_lowest_ = false, said_ = false;
};

}  // namespace longstride
