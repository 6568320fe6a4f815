// What a run's model thinks of a text: its bits a byte, the likeliest next byte, and how small it becomes.
// usage: score RUN TEXT
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include <longstride/longstride.h>

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::cerr << "usage: score RUN TEXT\n";
    return 2;
  }
  const longstride::Model model(argv[1]);
  const std::string text = argv[2];
  const std::span<const uint8_t> bytes = longstride::bytes_of(text);
  std::printf("%.3f bits a byte\n", model.bits_per_byte(bytes));

  const size_t seen = std::min(text.size(), static_cast<size_t>(model.context() - 1));
  const std::vector<float> logits = model.next_logits(bytes.last(seen));
  const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();
  std::printf("the likeliest next byte is '%c'\n", static_cast<char>(likeliest));

  const std::vector<uint8_t> small = model.compress(bytes);
  const std::vector<uint8_t> again = model.decompress(small);
  std::printf(
      "%zu bytes in a file of %zu, %s\n", text.size(), small.size(),
      std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()) ? "and back" : "but not back");
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
