// Small helpers for messages that people read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longstride {

// The candidate that `word` probably means, or "". First choice is one whose last part (after the last
// point) is the word, or that the word abbreviates ("lr" of learning_rate, "learn"). Second is the one with
// the smallest edit distance, if that is small.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

std::string human_bytes(double bytes);      // "1.5 GiB"
std::string human_count(double count);      // "94.9M"
std::string human_seconds(double seconds);  // "1h 02m", "3m 20s", "12s"

std::vector<std::string> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);

// The whole of `text` as a decimal number; throws Error naming `what` otherwise. Accepts 1_000 and, for
// integers, 64Ki and 2M; leading zeros change nothing.
int64_t parse_integer(std::string_view text, std::string_view what);
uint64_t parse_unsigned(std::string_view text, std::string_view what);
double parse_number(std::string_view text, std::string_view what);

}  // namespace longstride
