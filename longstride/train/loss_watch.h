// Tells a run that diverges from the noise of healthy losses.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace longstride {

class LossWatch {
 public:
  struct Rise {
    double from = 0, to = 0;  // bits a byte
  };
  // Takes the loss of the next step, in bits a byte. Something is wrong if the mean of the last five losses
  // is above the 8 bits of uniform bytes, or more than a bit, and more than noise is, above the lowest mean
  // of twenty before them. Says so once.
  std::optional<Rise> add(double bits);
  // Forgets what was before: losses from here on are of another kind.
  void restart();

 private:
  std::deque<double> losses_;  // the newest last
  double lowest_ = 0;          // mean of twenty
  double spread_ = 0;          // the largest standard deviation of the noise lately
  bool has_lowest_ = false, said_ = false;
};

}  // namespace longstride
