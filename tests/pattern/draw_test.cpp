// Pictures are read back and compared with Pattern::allows.
#include "longstride/pattern/draw.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

using testing::HasSubstr;

struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
  std::array<int, 3> at(int64_t x, int64_t y) const {
    const uint8_t* p = &rgb.at(static_cast<size_t>((y * width + x) * 3));
    return {p[0], p[1], p[2]};
  }
  // White and light grey are background; terms have colours.
  bool coloured(int64_t x, int64_t y) const {
    const auto [red, green, blue] = at(x, y);
    return std::max({red, green, blue}) - std::min({red, green, blue}) > 40;
  }
};

Image read_png(const std::string& path) {
  png_image header;
  std::memset(&header, 0, sizeof header);
  header.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_file(&header, path.c_str()), 0) << header.message;
  header.format = PNG_FORMAT_RGB;
  Image image{header.width, header.height, std::vector<uint8_t>(PNG_IMAGE_SIZE(header))};
  EXPECT_NE(png_image_finish_read(&header, nullptr, image.rgb.data(), 0, nullptr), 0) << header.message;
  return image;
}

class Draw : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("longstride_draw_{}_{}", test->name(), ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string file(const char* name) const { return (folder_ / name).string(); }
  std::filesystem::path folder_;
};

// The corners of the frames, found by their colour: the places of the panels.
struct PanelPlace {
  int64_t x, y, side;
};
std::vector<PanelPlace> panels_in(const Image& image) {
  constexpr std::array<int, 3> frame{150, 156, 166};
  std::vector<PanelPlace> panels;
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width;) {
      int64_t end = x;
      while (end < image.width && image.at(end, y) == frame) ++end;
      const bool top = end - x > 8 && y + 1 < image.height && image.at(x, y + 1) == frame &&
                       (y == 0 || image.at(x, y - 1) != frame);
      if (top) panels.push_back({x + 1, y + 1, end - x - 2});
      x = std::max(end, x + 1);
    }
  return panels;
}

void expect_panel(const Image& image, const PanelPlace& place, const Pattern& pattern, int64_t n) {
  const int64_t cell = place.side / n;
  for (int64_t q = 0; q < n; ++q)
    for (int64_t k = 0; k < n; ++k)
      ASSERT_EQ(image.coloured(place.x + k * cell + cell / 2, place.y + q * cell + cell / 2),
                pattern.allows(q, k))
          << to_string(pattern) << " q=" << q << " k=" << k;
}

TEST_F(Draw, EveryPairAtItsPlace) {
  std::vector<const char*> patterns = terms::examples();
  patterns.insert(patterns.end(), {"strided:7", "fixed:8,3"});
  for (const char* text : patterns) {
    draw_schedule(parse_schedule(text), 1, 40, 300, file("a.png"));
    const Image image = read_png(file("a.png"));
    const auto panels = panels_in(image);
    ASSERT_EQ(panels.size(), 1u) << text;
    expect_panel(image, panels[0], parse_pattern(text), 40);
  }
  draw_schedule(parse_schedule("strided:7"), 1, 50, 50, file("b.png"));  // one pixel per pair, no lines
  const Image image = read_png(file("b.png"));
  ASSERT_EQ(panels_in(image).size(), 1u);
  EXPECT_EQ(panels_in(image)[0].side, 50);
  expect_panel(image, panels_in(image)[0], parse_pattern("strided:7"), 50);
}

TEST_F(Draw, LayersBesideEachOtherHeadsBelow) {
  draw_schedule(parse_schedule("window:6|spread-summary:8,2,strided:5*2,dense,strided:5"), 4, 20, 200,
                file("a.png"));
  const Image image = read_png(file("a.png"));
  auto panels = panels_in(image);
  ASSERT_EQ(panels.size(), 5u);  // window, summary run 2, run 3; strided; dense
  std::sort(panels.begin(), panels.end(),
            [](const auto& a, const auto& b) { return std::pair(a.x, a.y) < std::pair(b.x, b.y); });
  const char* truth[]{"window:6", "summary:8,2,2", "summary:8,2,3", "strided:5", "dense"};
  for (size_t i = 0; i < 5; ++i) expect_panel(image, panels[i], parse_pattern(truth[i]), 20);
  EXPECT_EQ(panels[0].y, panels[3].y);
  EXPECT_EQ(panels[0].x, panels[2].x);
}

TEST_F(Draw, LongSequencesBySampling) {
  draw_schedule(parse_schedule("fixed:1000,500"), 1, 100000, 100, file("a.png"));
  const Image image = read_png(file("a.png"));
  const auto panels = panels_in(image);
  ASSERT_EQ(panels.size(), 1u);
  EXPECT_EQ(panels[0].side, 100);
  for (int64_t row = 0; row < 100; ++row)
    for (int64_t column = 0; column < 100; ++column)
      EXPECT_EQ(image.coloured(panels[0].x + column, panels[0].y + row), column <= row)
          << row << " " << column;
}

TEST_F(Draw, SvgHasARectangleAPair) {
  draw_schedule(parse_schedule("window:1"), 1, 10, 100, file("a.svg"));
  std::stringstream text;
  text << std::ifstream(file("a.svg")).rdbuf();
  EXPECT_EQ(text.str().rfind("<svg ", 0), 0u);
  EXPECT_THAT(text.str(), HasSubstr(">window:1</text>"));
  EXPECT_THAT(text.str(), testing::EndsWith("</svg>\n"));
  size_t count = 0;
  for (size_t at = 0; (at = text.str().find("fill=\"#2052", at)) != std::string::npos; ++at)
    ++count;  // window, darkened
  EXPECT_EQ(count, 10u);
}

TEST_F(Draw, WhatOneQuerySeesAboveThePanel) {
  constexpr int64_t kN = 40, kQuery = 33, kRow = 7, kCell = 14;
  std::vector<const char*> patterns = terms::examples();
  patterns.insert(patterns.end(), {"strided:7", "fixed:8,3"});
  for (const char* text : patterns) {
    const Pattern pattern = parse_pattern(text);
    draw_schedule(parse_schedule(text), 1, kN, 300, file("a.png"), DrawnQuery{kQuery, kRow});
    const Image image = read_png(file("a.png"));
    const auto panels = panels_in(image);
    ASSERT_EQ(panels.size(), 2u) << text;
    ASSERT_EQ(panels[0].side, kRow * kCell + 1) << text;
    for (int64_t k = 0; k < kN; ++k) {
      const int64_t x = panels[0].x + k % kRow * kCell + kCell / 2,
                    y = panels[0].y + k / kRow * kCell + kCell / 2;
      EXPECT_EQ(image.coloured(x, y), k != kQuery && pattern.allows(kQuery, k) && k < kQuery)
          << text << " " << k;
      const int red = image.at(x, y)[0];
      EXPECT_EQ(red < 25, k == kQuery) << text << " " << k;
      EXPECT_EQ(red == 255, k > kQuery) << text << " " << k;
    }
    expect_panel(image, panels[1], pattern, kN);
  }
}

TEST_F(Draw, TheQueryOfALongSequenceHasCellsOfSeveralPositions) {
  draw_schedule(parse_schedule("fixed:1000,500"), 1, 100003, 100, file("a.png"), DrawnQuery{50200, 1000});
  const Image image = read_png(file("a.png"));
  const auto panels = panels_in(image);
  ASSERT_EQ(panels.size(), 2u);
  ASSERT_EQ(panels[0].side, 100);
  for (int64_t row = 0; row < 48; ++row)
    for (int64_t column = 0; column < 100; ++column)
      EXPECT_EQ(image.coloured(panels[0].x + column, panels[0].y + row), column >= 50)
          << row << " " << column;
}

TEST(DrawQuery, SaysHowManyKeysItSees) {
  const std::string drawn =
      picture_of(parse_schedule("window:6|stride:5"), 2, 40, 200, DrawnQuery{33, 5}).svg();
  EXPECT_THAT(drawn, HasSubstr(">query 33: 6 keys<"));
  EXPECT_THAT(drawn, HasSubstr(">query 33: 7 keys<"));
  EXPECT_THAT(drawn, HasSubstr(">head 1<"));  // blanks before it would be left out
  EXPECT_THAT(picture_of(parse_schedule("window:6"), 1, 40, 200, DrawnQuery{0, 40}).svg(),
              HasSubstr(">query 0: 1 key<"));
  const Schedule schedule = parse_schedule("dense");
  EXPECT_THROW(picture_of(schedule, 1, 40, 200, DrawnQuery{40, 5}), Error);
  EXPECT_THROW(picture_of(schedule, 1, 40, 200, DrawnQuery{-1, 5}), Error);
  EXPECT_THROW(picture_of(schedule, 1, 40, 200, DrawnQuery{0, 0}), Error);
}

TEST_F(Draw, RefusesWhatCannotBe) {
  const Schedule schedule = parse_schedule("window:4|dense");
  const auto message = [&](int64_t heads, int64_t n, int64_t pixels, const std::string& path) -> std::string {
    try {
      draw_schedule(schedule, heads, n, pixels, path);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  };
  EXPECT_THAT(message(2, 8, 100, file("a.jpg")), HasSubstr("must end in .png or .svg"));
  EXPECT_THAT(message(2, 8, 100, file("no/such/a.png")), HasSubstr("the folder above it must exist"));
  EXPECT_THAT(message(2, 8, 100, file("no/such/a.svg")), HasSubstr("No such file"));
  EXPECT_THAT(message(3, 8, 100, file("a.png")), HasSubstr("3 heads cannot share"));
  EXPECT_THAT(message(2, 0, 100, file("a.png")), HasSubstr("n of at least 1"));
  EXPECT_THAT(message(2, 8, 0, file("a.png")), HasSubstr("from 16 to 16384 pixels"));
}

TEST(DrawReach, HasAPanelForEachDepth) {
  const std::string drawn = picture_of_reach(parse_schedule("strided:4"), 6, 1, 16, 256).svg();
  EXPECT_NE(drawn.find("after 1 layer<"), std::string::npos);
  EXPECT_NE(drawn.find("after 2 layers"), std::string::npos);
  EXPECT_EQ(drawn.find("after 3 layers"), std::string::npos);  // two show all
}

}  // namespace
}  // namespace longstride
