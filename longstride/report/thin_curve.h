// Curves of any length in bounded memory, as a picture needs them.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace longstride {

// A value that is not finite is NaN: the curve has a gap there.
struct CurveSample {
  int64_t step = 0;
  double value = 0;
};

// Keeps the lowest and the highest value of each stretch of steps, so that a thinned curve looks like the
// whole one. Stretches grow twice as long whenever there are too many of them.
class ThinCurve {
 public:
  // Steps may repeat, but not fall.
  void add(int64_t step, double value);

  // In the order of the steps: the first and the last value, and two for each stretch at most.
  std::vector<CurveSample> samples() const;
  int64_t count() const { return count_; }
  int64_t not_finite() const { return not_finite_; }
  int64_t first_not_finite() const { return first_not_finite_; }  // its step; -1: none
  // Of the finite values; the steps are -1 without one.
  CurveSample first() const { return first_; }
  CurveSample last() const { return last_; }
  CurveSample lowest() const { return lowest_; }

  static constexpr int64_t kMostStretches = 800;

 private:
  struct Stretch {
    int64_t index = 0;  // of all stretches of this length
    CurveSample low{-1}, high{-1};
    bool gap = false;
  };
  void halve();

  std::vector<Stretch> stretches_;
  int64_t length_ = 1;  // steps in a stretch
  int64_t count_ = 0, not_finite_ = 0, first_not_finite_ = -1;
  CurveSample first_{-1}, last_{-1}, lowest_{-1, std::numeric_limits<double>::infinity()};
};

// When a step was done: bytes trained on and seconds of training so far.
struct ClockSample {
  int64_t step = 0;
  double bytes = 0, seconds = 0;
};

// The last sample of each stretch of steps.
class ThinClock {
 public:
  void add(const ClockSample& sample);
  const std::vector<ClockSample>& samples() const { return samples_; }

  static constexpr int64_t kMostSamples = 400;

 private:
  std::vector<ClockSample> samples_;
  int64_t length_ = 1;
};

}  // namespace longstride
