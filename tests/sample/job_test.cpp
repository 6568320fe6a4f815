// What a job derives from a configuration and a session.
#include "longstride/sample/job.h"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

SampleJob text_job() {
  SampleJob job;
  job.config.data.kind = "text";
  job.config.model.context = 64;
  job.session.kind = "text";
  job.session.length = 100;
  return job;
}

SampleJob picture_job() {
  SampleJob job = text_job();
  DataConfig& data = job.config.data;
  data.kind = "image";
  data.image_height = 4, data.image_width = 4, data.image_channels = 4;
  job.session.length = 64;
  return job;
}

TEST(SampleJob, SamplesHaveStreamsOfTheirOwn) {
  SampleJob job = text_job();
  job.session.sampler.seed = 5;
  prepare(job);
  EXPECT_EQ(job.windows.context, 64);
  EXPECT_EQ(job.windows.hop, 32);
  add_sequences(job, 2, {1, 2, 3});
  ASSERT_EQ(job.session.sequences.size(), 2u);
  for (uint32_t i = 0; i < 2; ++i) {
    const Sequence& sequence = job.session.sequences[i];
    EXPECT_EQ(sequence.stream, i);
    EXPECT_EQ(sequence.prime, 3);
    EXPECT_EQ(sequence.length, 100);
    EXPECT_EQ(sequence.sampler.seed, 5u);
  }
}

TEST(SampleJob, APictureHasItsShape) {
  SampleJob job = picture_job();
  prepare(job);
  EXPECT_EQ(job.shape, (ImageShape{4, 4, 4}));
  job.session.length = 65;
  add_sequences(job, 1, {});
  EXPECT_THROW(prepare(job), Error);
  job = picture_job();
  job.config.data.image_width = 5;
  EXPECT_THROW(prepare(job), Error);
}

TEST(SampleJob, LengthsThatCannotBeCounted) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  SampleJob job = text_job();
  job.session.length = kMost / 2 + 1;
  prepare(job);
  EXPECT_THROW(add_sequences(job, 2, {}), Error);
  add_sequences(job, 1, {});
  job.session.sequences.push_back(job.session.sequences[0]);
  EXPECT_THROW(prepare(job), Error);
}

}  // namespace
}  // namespace longstride
