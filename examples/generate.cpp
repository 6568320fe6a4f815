// Lets a run's model go on from a text. usage: generate RUN [BEGINNING [BYTES]]
#include <exception>
#include <iostream>
#include <string>

#include <longstride/longstride.h>

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::cerr << "usage: generate RUN [BEGINNING [BYTES]]\n";
    return 2;
  }
  const longstride::Model model(argv[1]);
  const std::string beginning = argc > 2 ? argv[2] : "";
  longstride::GenerateOptions options;
  options.count = argc > 3 ? std::stoll(argv[3]) : 80;
  options.temperature = 0.8;
  options.seed = 7;

  std::cout << beginning;
  for (const uint8_t byte : model.generate(longstride::bytes_of(beginning), options))
    std::cout << static_cast<char>(byte) << std::flush;
  std::cout << "\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
