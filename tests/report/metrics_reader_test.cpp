#include "longstride/report/metrics_reader.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class MetricsReaderTest : public testing::Test {
 protected:
  void append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  TemporaryFolder folder_;
  const std::string path_ = folder_ / "metrics.jsonl";
};

TEST(ParseMetricsLine, TakesNumbersAndLeavesOthersOut) {
  std::vector<std::pair<std::string, double>> row;
  ASSERT_TRUE(parse_metrics_line(R"({"step":3,"time":1.5,"a/b":-2e-3,"c":null})", row));
  ASSERT_EQ(row.size(), 4u);
  EXPECT_EQ(row[2].first, "a/b");
  EXPECT_EQ(row[2].second, -2e-3);
  EXPECT_TRUE(std::isnan(row[3].second));
  // What only the JSON library reads.
  ASSERT_TRUE(parse_metrics_line(R"({ "step" : 4, "quo\"te":1, "text":"x", "list":[1] })", row));
  EXPECT_EQ(row.size(), 2u);
  for (const char* broken :
       {"", "{", "[1]", "7", R"({"step":)", R"({"step":3)", R"({"step":3}})", R"({"step":3,})", "\x01\xff"})
    EXPECT_FALSE(parse_metrics_line(broken, row)) << broken;
}

TEST_F(MetricsReaderTest, ReadsWhatIsThereAndLaterWhatCame) {
  MetricsReader reader(path_);
  reader.refresh();
  EXPECT_EQ(reader.rows(), 0);
  EXPECT_EQ(reader.last_step(), -1);
  append(
      "{\"step\":10,\"time\":100,\"train/bits\":7,\"train/bytes\":1000,\"train/tokens_per_second\":500}\n");
  append("{\"step\":20,\"time\":103,\"train/bits\":6,\"train/by");
  reader.refresh();
  EXPECT_EQ(reader.rows(), 1);
  EXPECT_THAT(reader.remarks(), ElementsAre(HasSubstr("not whole yet")));
  EXPECT_EQ(reader.seconds(), 2);
  append("tes\":2000,\"train/tokens_per_second\":250}\n");
  reader.refresh();
  EXPECT_EQ(reader.rows(), 2);
  EXPECT_THAT(reader.remarks(), IsEmpty());
  EXPECT_EQ(reader.bytes(), 2000);
  EXPECT_EQ(reader.seconds(), 6);
  EXPECT_EQ(reader.curve("train/bits").last().value, 6);
}

TEST_F(MetricsReaderTest, AFileThatWasReplacedIsReadAgain) {
  append("{\"step\":10,\"x\":1}\n{\"step\":20,\"x\":2}\n");
  MetricsReader reader(path_);
  reader.refresh();
  write_bytes(folder_ / "other", "{\"step\":10,\"x\":5}\n");
  std::filesystem::rename(folder_ / "other", path_);
  reader.refresh();
  EXPECT_EQ(reader.rows(), 1);
  EXPECT_EQ(reader.curve("x").last().value, 5);
  std::filesystem::remove(path_);
  reader.refresh();
  EXPECT_EQ(reader.rows(), 0);
}

TEST_F(MetricsReaderTest, BrokenLinesAreCountedAndLeftOut) {
  append(
      "{\"step\":10,\"x\":1}\n{\"step\":1\n\n{\"time\":3}\n{\"step\":-4}\n{\"step\":1.5}\n{\"step\":null}\n{"
      "\"step\":1e300}\n");
  append("{\"step\":20,\"x\":NaN}\n{\"step\":15,\"x\":3}\n{\"step\":30,\"x\":2}\n");
  MetricsReader reader(path_);
  reader.refresh();
  EXPECT_EQ(reader.rows(), 3);
  EXPECT_EQ(reader.curve("x").not_finite(), 1);
  EXPECT_THAT(reader.remarks(), ElementsAre(testing::AllOf(HasSubstr("7 lines"), HasSubstr("line 2")),
                                            HasSubstr("earlier step"), HasSubstr("x is not finite")));
}

TEST_F(MetricsReaderTest, ALineWithoutAnEndIsSkipped) {
  append("{\"step\":1,\"x\":1}\n" + std::string(10 << 20, 'a') + "\n{\"step\":2,\"x\":2}\n");
  MetricsReader reader(path_);
  reader.refresh();
  EXPECT_EQ(reader.rows(), 2);
  EXPECT_THAT(reader.remarks(), ElementsAre(HasSubstr("1 line ")));
}

TEST_F(MetricsReaderTest, TheTailAloneTellsTheLastLines) {
  std::string text;
  for (int i = 1; i <= 10000; ++i)
    text += "{\"step\":" + std::to_string(i) + ",\"train/bytes\":" + std::to_string(i * 10) +
            ",\"train/tokens_per_second\":10}\n";
  append(text);
  MetricsReader reader(path_, 5000);
  reader.refresh();
  EXPECT_EQ(reader.last_step(), 10000);
  EXPECT_EQ(reader.bytes(), 100000);
  EXPECT_LT(reader.rows(), 100);
  EXPECT_LT(reader.seconds(), 100);  // not the time of what was not read
  EXPECT_THAT(reader.remarks(), IsEmpty());
}

TEST_F(MetricsReaderTest, ManyNamesAreBounded) {
  std::string line = "{\"step\":1";
  for (int i = 0; i < 1000; ++i) line += ",\"n" + std::to_string(i) + "\":1";
  append(line + "}\n");
  MetricsReader reader(path_);
  reader.refresh();
  EXPECT_EQ(reader.curves().size(), MetricsReader::kMostCurves);
  EXPECT_THAT(reader.remarks(), ElementsAre(HasSubstr("names")));
}

}  // namespace
}  // namespace longstride
