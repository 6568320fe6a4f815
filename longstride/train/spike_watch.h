// Which losses of steps are out of the ordinary, so that the step is not taken (train.skip_spikes).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longstride {

// Keeps the losses of the last 64 steps that were taken. A loss is a spike if it is above their median by more than
// `deviations` of them. The deviation is 1.4826 times the median distance from the median, which for normal noise is
// the standard deviation and which a few spikes do not change, but at least a hundredth of a bit. Until 16 losses
// are known nothing is a spike.
class SpikeWatch {
 public:
  // The largest loss, in bits a byte, of a step that is taken; infinity if there is no limit yet.
  double limit(double deviations) const;
  // Takes the loss of a step that was taken.
  void add(double bits);
  // The median; that of uniform bytes, 8, if there is none.
  double middle() const;
  // Losses of another stage cannot be compared.
  void restart() { losses_.clear(); }

  // For a checkpoint, with every bit.
  std::string to_text() const;
  // Throws Error if the text is not what to_text() gives.
  static SpikeWatch from_text(const std::string& text);

 private:
  std::vector<double> losses_;  // the newest last
};

}  // namespace longstride
