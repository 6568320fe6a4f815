#include "longstride/ops/embedding.h"

#include <cmath>

#include "longstride/ops/reference/embedding.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Embedding, AgreesWithTheReference) {
  expect_all_pass(verify::check_embedding({}, verify::Effort::thorough));
}

// Tables of width 1 whose values are digits at different places: the sum shows what was added.
struct Digits {
  std::vector<float> token{100, 200, 300}, start{900}, row{10, 20}, column{1, 2, 3};
  EmbeddingTables tables(PositionShift shift) {
    return {matrix(token, 3, 1), flat(start), {matrix(row, 2, 1), matrix(column, 3, 1)}, shift};
  }
};

TEST(Embedding, KnownValuesWithThePositionOfTheSlot) {
  Digits digits;
  std::vector<uint8_t> tokens{0, 1, 2, 0, 1, 2, 2};  // seven slots on a grid of six: the last wraps to row 0
  std::vector<float> y(7, NAN);
  run({}, EmbeddingForward{matrix(tokens, 1, 7), digits.tables(PositionShift::before), matrix(y, 7, 1)});
  EXPECT_THAT(y, testing::ElementsAre(911, 112, 213, 321, 122, 223, 311));
}

TEST(Embedding, KnownValuesWithThePositionOfTheToken) {
  Digits digits;
  std::vector<uint8_t> tokens{0, 1, 2, 0, 1, 2};  // two sequences of three
  std::vector<float> y(6, NAN);
  run({}, EmbeddingForward{matrix(tokens, 2, 3), digits.tables(PositionShift::after), matrix(y, 6, 1)});
  EXPECT_THAT(y, testing::ElementsAre(900, 111, 212, 900, 111, 212));
}

TEST(Embedding, KnownGradients) {
  Digits digits;
  digits.token = {0, 0, 0}, digits.start = {0.5f}, digits.row = {0, 0}, digits.column = {0, 0, 0};
  std::vector<uint8_t> tokens{0, 1, 1, 0, 2};
  std::vector<float> dy{1, 10, 100, 1000, 10000};
  run({}, EmbeddingBackward{matrix(tokens, 1, 5), matrix(dy, 5, 1), digits.tables(PositionShift::before)});
  EXPECT_THAT(digits.start, testing::ElementsAre(1.5f));
  EXPECT_THAT(digits.token, testing::ElementsAre(10010, 1100, 0));  // the last token is not read
  EXPECT_THAT(digits.row, testing::ElementsAre(111, 11000));
  EXPECT_THAT(digits.column, testing::ElementsAre(1001, 10010, 100));
}

TEST(Embedding, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kBatch = 2, kLength = 6, kWidth = 2;
  const std::vector<uint8_t> tokens{0, 2, 1, 2, 2, 0, 1, 1, 0, 2, 1, 0};
  const std::vector<double> dy = normal_doubles(1, kBatch * kLength * kWidth);
  // All tables in one vector: token (3, 2), start (2), axes (2, 2) and (3, 2).
  const std::vector<double> all = normal_doubles(2, 6 + 2 + 4 + 6);
  const auto unpack = [](const auto& from, PositionShift shift) {
    using T = typename std::decay_t<decltype(from)>::value_type;
    const auto part = [&](int begin, int end) {
      return std::vector<T>(from.begin() + begin, from.begin() + end);
    };
    return reference::EmbeddingTables<T>{kWidth, part(0, 6), part(6, 8), {2, 3}, {part(8, 12), part(12, 18)},
                                         shift};
  };
  for (PositionShift shift : {PositionShift::before, PositionShift::after}) {
    auto gradients = unpack(std::vector<double>(all.size()), shift);
    reference::embedding_backward(tokens.data(), dy.data(), gradients, kBatch, kLength);
    std::vector<double> packed = gradients.token;
    for (const auto& part : {gradients.start, gradients.axes[0], gradients.axes[1]})
      packed.insert(packed.end(), part.begin(), part.end());
    expect_near_all(packed,
                    complex_step_gradient(
                        [&](const std::vector<Complex>& at) {
                          auto tables = unpack(at, shift);
                          std::vector<Complex> y(dy.size());
                          reference::embedding_forward(tokens.data(), tables, kBatch, kLength, y.data());
                          return dot(y, complexified(dy));
                        },
                        all),
                    1e-13);
  }
}

TEST(Embedding, RefusesWrongArguments) {
  Digits digits;
  const EmbeddingTables tables = digits.tables(PositionShift::before);
  std::vector<uint8_t> tokens{0, 1, 3};
  std::vector<float> y(3, 7.0f);
  EXPECT_THAT(error_of([&] {
                run({}, EmbeddingForward{matrix(tokens, 1, 3), tables, matrix(y, 3, 1)});
              }),
              testing::HasSubstr("embedding_forward: tokens[2] is 3, must be below 3"));
  EXPECT_THAT(y, testing::Each(7.0f));
  EXPECT_THAT(error_of([&] {
                run({}, EmbeddingBackward{matrix(tokens, 1, 3), matrix(y, 3, 1), tables});
              }),
              testing::HasSubstr("tokens[2] is 3"));
  EXPECT_THAT(error_of([&] {
                run({}, EmbeddingForward{matrix(tokens, 1, 3), tables, matrix(y, 1, 3)});
              }),
              testing::HasSubstr("y is f32 (1, 3), must be f32 (3, 1)"));
  EXPECT_THAT(error_of([&] {
                run({}, EmbeddingOne{flat(tokens), std::vector<int64_t>{0, 0, -2}, tables, matrix(y, 3, 1)});
              }),
              testing::HasSubstr("position is -2"));
  EXPECT_THAT(error_of([&] {
                run({}, EmbeddingOne{flat(tokens), std::vector<int64_t>{1, 1, 1}, tables, matrix(y, 3, 1)});
              }),
              testing::HasSubstr("previous[2] is 3"));
}

}  // namespace
}  // namespace longstride
