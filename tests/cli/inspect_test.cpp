// `longstride inspect` as a user runs it: data, stages, what a sampler keeps, and plans of time, cost and size.
#include <fstream>
#include <ios>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(CliTest, InspectLooksAtPictures) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (99, 4, 4, 3), }";
  header.resize(117, ' ');
  std::ofstream(folder_ / "p.npy", std::ios::binary) << "\x93NUMPY\x01\x00\x76\x00"s << header << '\n'
                                                     << std::string(99 * 48, 'x');
  const std::string pictures = "--set data.kind=image --set data.path=p.npy ";
  write_small_config();
  Outcome outcome = longstride("inspect small.toml " + pictures + "--set model.context=64");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("model.context = 64, but a picture of p.npy has 48 bytes"));
  outcome = longstride("inspect small.toml " + pictures + "--set model.context=48");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("positions  4 x 4 x 3"));
}

TEST_F(CliTest, InspectTellsTheStagesOfARun) {
  write_small_config("context_schedule = '16 until 0.1; 32 until 0.75'\n");
  Outcome outcome = longstride("inspect small.toml");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("stage      from 0 % of the run: context 16, pattern fixed:16,4, batch 8\n"),
                    HasSubstr("stage      from 10 % of the run: context 32, pattern fixed:16,4, batch 4\n"),
                    HasSubstr("stage      from 75 % of the run: context 64, pattern fixed:16,4, batch 2\n")));
  outcome = longstride("inspect small.toml --json");
  const auto stages = nlohmann::json::parse(outcome.out)["stages"];
  ASSERT_EQ(stages.size(), 3);
  EXPECT_EQ(stages[1]["from"], 0.1);
  EXPECT_EQ(stages[1]["context"], 32);
  EXPECT_THAT(longstride("inspect small.toml --set train.context_schedule=\"\"").out,
              Not(HasSubstr("stage ")));
}

TEST_F(CliTest, InspectTellsWhatASamplerKeeps) {
  const std::string model =
      "--set model.context=256 --set model.layers=4 --set model.heads=4 --set model.width=64 "
      "--set compute.precision=f32 --set model.pattern=stride:16,window:16,fixed:16,4";
  write_small_config();
  Outcome outcome = longstride("inspect small.toml --json " + model);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto all = nlohmann::json::parse(outcome.out);
  const int64_t row = 2 * 16 * 4, dense = 4 * 256 * row;  // bytes of a head's key and value, and of a layer
  const double rows[] = {256, 16, 16 + 64};
  for (int layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(all["layers"][layer]["cache_rows"], rows[layer]);
    EXPECT_EQ(all["layers"][layer]["cache_bytes"], rows[layer] * 4 * row);
    EXPECT_EQ(all["layers"][layer]["cache_of_dense"], rows[layer] / 256);
  }
  // The fourth layer is the first of the next cycle.
  EXPECT_EQ(all["memory"]["sampling"]["cache_a_stream"], (2 * 256 + 16 + 80) * 4 * row);
  EXPECT_EQ(all["memory"]["sampling"]["dense_cache_a_stream"], 4 * dense);
  EXPECT_EQ(all["memory"]["sampling"]["cache_dtype"], "f32");

  outcome = longstride("inspect small.toml " + model);
  EXPECT_THAT(outcome.out,
              HasSubstr("window:16: 16 rows of keys and values a head, 8.0 KiB a layer, 6.25 % of a dense"));
  EXPECT_THAT(outcome.out, HasSubstr("304.0 KiB in f32 a stream for 4 layers, 59.4 % of a dense cache"));
}

TEST_F(CliTest, InspectPlansTimeCostAndWhatFits) {
  write_small_config();
  Outcome outcome = longstride("inspect small.toml --time --price 3600 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto first = nlohmann::json::parse(outcome.out)["time"];
  EXPECT_GT(first["run"]["steps"], 0);
  EXPECT_GE(first["run"]["seconds"].get<double>(),
            first["run"]["steps"].get<double>() * first["stages"][0]["seconds"].get<double>() * 0.999);
  EXPECT_NEAR(first["run"]["cost"].get<double>(), first["run"]["seconds"].get<double>(), 1e-9);
  // It is kept, until it is wanted anew.
  const auto again = nlohmann::json::parse(longstride("inspect small.toml --time --json").out)["time"];
  EXPECT_EQ(again["stages"], first["stages"]);
  const auto anew =
      nlohmann::json::parse(longstride("inspect small.toml --time --measure --json").out)["time"];
  EXPECT_NE(anew["stages"], first["stages"]);
  EXPECT_THAT(longstride("inspect small.toml --time").out, HasSubstr("\nrun        about "));
  // A run that is cut by its minutes takes these, and what its validations take.
  const auto timed =
      nlohmann::json::parse(longstride("inspect small.toml --time --json --set train.minutes=0.5 "
                                       "--set train.steps=100000000 --set train.validate_every=0")
                                .out)["time"];
  EXPECT_NEAR(timed["run"]["seconds"].get<double>(), 30, 1e-6);

  outcome = longstride("inspect small.toml --fit layers --room 64Mi --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto fitted = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(fitted["fit"]["key"], "model.layers");
  EXPECT_GT(fitted["fit"]["value"], fitted["fit"]["before"]);
  EXPECT_EQ(fitted["memory"]["training"]["total"], fitted["fit"]["needed"]);
  EXPECT_THAT(longstride("inspect small.toml --fit batch --room 1Ki").err,
              HasSubstr("no train.batch fits into"));
  EXPECT_THAT(longstride("inspect small.toml --draw p.svg --query 64").err,
              HasSubstr("--query 64: the positions are 0 to 63"));
  EXPECT_EQ(longstride("inspect small.toml --draw p.svg --query 63").code, 0);
  EXPECT_THAT(read_bytes(folder_ / "p.svg"), HasSubstr(">query 63: "));
}

}  // namespace
}  // namespace longstride
