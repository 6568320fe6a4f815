// The page in a browser, where there is a Chromium: it draws, and it keeps the reader's place when it loads itself again.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/report/page.h"

#include "tests/report/text_sink.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  char piece[4096];
  for (size_t count = 0; (count = fread(piece, 1, sizeof piece, pipe)) > 0;) text.append(piece, count);
  pclose(pipe);
  return text;
}

class BrowserTest : public testing::Test {
 protected:
  void SetUp() override {
    browser_ = output_of("command -v chromium || command -v chromium-browser || command -v google-chrome");
    if (browser_.empty()) GTEST_SKIP() << "there is no Chromium";
    browser_.erase(browser_.find('\n'));
  }

  // A page of two runs with 200 steps. `script` runs in it too.
  void write_page_with(const std::string& script, int64_t refresh_seconds,
                       const std::string& second = "with \"quotes\"") {
    std::string metrics;
    for (int i = 1; i <= 200; ++i)
      metrics += fmt::format(
          "{{\"step\":{},\"train/bits\":{},\"train/learning_rate\":1e-3,\"train/bytes\":{},\"train/"
          "tokens_per_second\":100}}\n",
          i, 8.0 / i, 64 * i);
    write_bytes(folder_ / "metrics", metrics);
    std::vector<PageRun> runs;
    MetricsReader reader(folder_ / "metrics");
    reader.refresh();
    for (const std::string& name : {std::string("first"), second}) {
      PageRun run;
      run.view.path = run.view.name = name;
      run.view.config = RunConfig{};
      run.metrics = &reader;
      runs.push_back(run);
    }
    PageOptions options;
    options.refresh_seconds = refresh_seconds;
    TextSink sink;
    write_page(sink, runs, options);
    std::string page = sink.text;
    const std::string opening = "<script nonce=\"";
    const size_t begin = page.find(opening);
    const std::string element = page.substr(begin, page.find('>', begin) + 1 - begin);
    page.insert(page.find("</body>"), element + script + "</script>");
    write_bytes(folder_ / "page.html", page);
  }
  // What the page has become after `milliseconds` of its own time.
  std::string shown(int milliseconds, int width = 1000) {
    return output_of(fmt::format(
        "HOME={0} timeout 60 {1} --headless=new --no-sandbox --disable-gpu --user-data-dir={0}/browser "
        "--window-size={3},800 --virtual-time-budget={2} --dump-dom file://{0}/page.html 2>/dev/null",
        folder_.path(), browser_, milliseconds, width));
  }

  TemporaryFolder folder_;
  std::string browser_;
};

TEST_F(BrowserTest, DrawsItsChartsForAllSenses) {
  write_page_with(R"(addEventListener('load', () => {
    const unnamed = [...document.querySelectorAll('input, select, button, summary, svg[tabindex]')].filter((e) =>
      !(e.getAttribute('aria-label') || (e.closest('label') || e).textContent.trim()));
    const chart = document.querySelector('.plot svg');
    const press = (key) => chart.dispatchEvent(new KeyboardEvent('keydown', { key }));
    const said = () => chart.getAttribute('aria-valuetext');
    chart.focus();
    press('End');
    const end = said();
    press('Home');
    press('ArrowRight');
    document.querySelector('figure details').open = true;
    setTimeout(() => {
      document.body.dataset.found = [unnamed.length, end, said(), document.querySelectorAll('figure table th[scope=col]').length,
        document.querySelector('figure caption').textContent].join('; ');
      press('+');
      document.body.dataset.zoom = location.hash;
      press('Escape');
      document.body.dataset.whole = location.hash;
    }, 100);
  });)",
                  0);
  const std::string page = shown(2000);
  EXPECT_THAT(page,
              HasSubstr("data-found=\"0; 200 steps: training first 0.0400, training with &quot;quotes&quot; "
                        "0.0400; 2 steps: training first 4.0000, training with &quot;quotes&quot; 4.0000; 3; "
                        "Bits per byte\""));
  EXPECT_THAT(page, HasSubstr("data-zoom=\"#zoom="));
  EXPECT_THAT(page, HasSubstr("data-whole=\"\""));
  EXPECT_THAT(page, HasSubstr("<path "));
  EXPECT_THAT(page, Not(HasSubstr(">nothing to show<")));
}

TEST_F(BrowserTest, KeepsThePlaceWhenItLoadsItselfAgain) {
  write_page_with(R"(addEventListener('load', () => {
    const table = document.querySelectorAll('figure details')[1], chart = document.querySelectorAll('.plot svg')[1];
    if (!sessionStorage.getItem('visited')) {
      sessionStorage.setItem('visited', '1');
      table.open = true;
      for (const choice of ['#log', 'input[value=bytes]', 'input[data-run="1"]']) document.querySelector(choice).click();
      chart.focus();
      for (let i = 0; i < 3; ++i) chart.dispatchEvent(new KeyboardEvent('keydown', { key: 'PageDown' }));
      scrollTo(0, 200);
    } else {
      document.getElementById('pause').checked = true;
      chart.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }));
      const at = chart.getAttribute('aria-valuenow');
      document.body.dataset.found = [Math.abs(scrollY - 200) < 2, table.open, table.querySelector('table') !== null, document.activeElement === chart,
        at, location.hash].join(' ');
    }
  });)",
                  1);
  EXPECT_THAT(shown(4000),
              HasSubstr("data-found=\"true true true true 69 #x=bytes&amp;log=1&amp;hidden=1\""));
}

TEST_F(BrowserTest, NothingIsWiderThanANarrowScreen) {
  write_page_with(R"(addEventListener('load', () => {
    for (const details of document.querySelectorAll('details')) details.open = true;
    const chart = document.querySelector('.plot svg'), cut = [];
    for (const key of ['Home', 'PageUp', 'PageUp', 'PageUp', 'PageUp', 'PageUp', 'PageUp', 'End']) {
      chart.dispatchEvent(new KeyboardEvent('keydown', { key }));
      const tip = document.querySelector('.tip:not([hidden])').getBoundingClientRect();
      if (tip.left < 0 || tip.right > innerWidth) cut.push(key);
    }
    document.body.dataset.found = [document.documentElement.scrollWidth <= innerWidth, cut.length].join(' ');
  });)",
                  0, "a-name-without-blanks-" + std::string(150, 'x'));
  EXPECT_THAT(shown(2000, 500), HasSubstr("data-found=\"true 0\""));
}

// Of 200 values in a narrow chart.
TEST_F(BrowserTest, ACrowdedNoisyCurveIsABandAndALine) {
  write_page_with(R"(addEventListener('load', () => {
    const paths = () => [...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('path').length).join(' ');
    document.body.dataset.wide = paths();
    document.querySelector('.charts').style.width = '300px';
    document.getElementById('whole').click();  // draws all anew
    document.body.dataset.narrow = paths();
  });)",
                  0);
  const std::string page = shown(2000, 1400);
  EXPECT_THAT(page, HasSubstr("data-wide=\"2 2 2\""));  // bits, learning rate, bytes a second
  EXPECT_THAT(page, HasSubstr("data-narrow=\"4 2 4\""));
}

}  // namespace
}  // namespace longstride
