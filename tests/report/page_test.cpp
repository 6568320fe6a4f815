#include "longstride/report/page.h"

#include <memory>
#include <regex>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/report/text_sink.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string page_of(const std::vector<PageRun>& runs, const PageOptions& options = {}) {
  TextSink sink;
  write_page(sink, runs, options);
  return sink.text;
}

nlohmann::json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open) + open.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

class PageTest : public testing::Test {
 protected:
  PageRun run(const std::string& name, const std::string& metrics) {
    const std::string path = folder_ / fmt::format("m{}", readers_.size());
    write_bytes(path, metrics);
    auto& reader = readers_.emplace_back(std::make_unique<MetricsReader>(path));
    reader->refresh();
    PageRun page;
    page.view.path = page.view.name = name;
    page.metrics = reader.get();
    return page;
  }
  TemporaryFolder folder_;
  std::vector<std::unique_ptr<MetricsReader>> readers_;
};

TEST_F(PageTest, TextOfRunsIsEscapedEverywhere) {
  const std::string evil = "a\"b'</script><script>alert(1)</script>\n<!--&\xff";
  PageRun bad = run(evil, "{\"step\":1,\"</script><img src=x>\":1,\"train/bits\":2}\n");
  bad.view.remarks = {evil};
  bad.view.commands = {{"now", evil, {"longstride", evil}}};
  bad.view.config = RunConfig{};
  bad.view.config->data.path = evil.substr(0, evil.size() - 1);
  write_bytes(folder_ / "step-1.txt", evil);
  bad.view.samples = {{1, folder_ / "step-1.txt"}, {2, folder_ / "gone.txt"}};
  PageOptions options;
  options.title = evil;
  const std::string page = page_of({bad, run("b", "")}, options);
  EXPECT_THAT(page, Not(HasSubstr("<script>")));
  EXPECT_THAT(page, Not(HasSubstr("<img src=x")));
  EXPECT_THAT(page, Not(HasSubstr("a\"b")));
  EXPECT_THAT(page, Not(HasSubstr("\xff")));
  size_t scripts = 0;
  for (size_t at = page.find("<script"); at != std::string::npos; at = page.find("<script", at + 1))
    ++scripts;
  EXPECT_EQ(scripts, 2u);
  EXPECT_THAT(data_of(page)["runs"][0]["name"].get<std::string>(), HasSubstr("</script>"));
}

TEST_F(PageTest, NeedsNothingFromElsewhere) {
  const std::string page = page_of({run("a", "{\"step\":1,\"train/bits\":2}\n")});
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  std::string rest = page;
  for (const char* name : {"http://www.w3.org/2000/svg"})
    if (const size_t at = rest.find(name); at != std::string::npos) rest.erase(at, std::string(name).size());
  EXPECT_FALSE(std::regex_search(rest, std::regex("https?:|@import|url\\([^#]*//")));
}

TEST_F(PageTest, CurvesHaveNullWhereTheyAreNotFinite) {
  const std::string page = page_of({run("a",
                                        "{\"step\":1,\"train/bits\":2.123456789}\n{\"step\":2,\"train/"
                                        "bits\":null}\n{\"step\":3,\"train/bits\":1}\n")});
  const auto curve = data_of(page)["runs"][0]["curves"]["train/bits"];
  EXPECT_EQ(curve["y"], nlohmann::json::parse("[2.12346,null,1]"));
  EXPECT_EQ(curve["x"].size(), 3u);
}

TEST_F(PageTest, AMillionRowsMakeASmallPage) {
  std::string metrics;
  for (int i = 1; i <= 1'000'000; ++i)
    metrics += fmt::format("{{\"step\":{},\"train/bits\":{}}}\n", i, 2 + i % 7);
  EXPECT_LT(page_of({run("a", metrics)}).size(), 200'000u);
}

TEST_F(PageTest, LoadsItselfAgainOnlyWhileItIsWatched) {
  PageOptions options;
  EXPECT_THAT(page_of({run("a", "")}, options), Not(HasSubstr("id=\"pause\"")));
  options.refresh_seconds = 5;
  const std::string page = page_of({run("a", "")}, options);
  EXPECT_THAT(page, HasSubstr("id=\"pause\""));
  EXPECT_EQ(data_of(page)["refresh"], 5);
  EXPECT_THAT(page, HasSubstr("id=\"age\""));
}

TEST_F(PageTest, ChartsHaveNamesAndTables) {
  const std::string page = page_of({run("a", "{\"step\":1,\"train/bits\":2,\"x<y\":1}\n")});
  EXPECT_THAT(page, HasSubstr("as a table<span class=\"unseen\">: Bits per byte</span></summary>"));
  EXPECT_THAT(page, HasSubstr("as a table<span class=\"unseen\">: x&lt;y</span></summary>"));
}

TEST_F(PageTest, ConfigsAreTheSameOnlyIfSeveralCanBeRead) {
  PageRun first = run("a", ""), second = run("b", "");
  first.view.config = RunConfig{};
  EXPECT_THAT(page_of({first, second}), Not(HasSubstr("They are all the same")));
  second.view.config = RunConfig{};
  EXPECT_THAT(page_of({first, second}), HasSubstr("They are all the same"));
}

TEST_F(PageTest, APathIsNotSaidTwice) {
  PageRun one = run("a", "");
  EXPECT_THAT(page_of({one}), Not(HasSubstr("<span class=\"path\">")));
  one.view.path = "runs/a";
  EXPECT_THAT(page_of({one}), HasSubstr("<span class=\"path\">runs/a</span>"));
}

TEST(Base64, IsThatOfTheStandard) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo\xff"), "Zm9v/w==");
}

}  // namespace
}  // namespace longstride
