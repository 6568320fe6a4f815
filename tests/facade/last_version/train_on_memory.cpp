// Trains a small model on bytes in memory, saves it as a run, and lets it count on.
// usage: train_on_memory [NEW_RUN]
#include <cstdio>
#include <iostream>
#include <string>

#include <longstride/longstride.h>

int main(int argc, char** argv) try {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i % 50) + ' ';

  longstride::TrainOptions options;
  options.settings = {"model.context=64",         "model.layers=2",  "model.heads=2", "model.width=64",
                      "model.pattern=fixed:16,4", "train.steps=150", "train.batch=8", "compute.device=cpu"};
  if (argc > 1) options.run = argv[1];
  options.after_step = [](const longstride::TrainProgress& progress) {
    if (progress.step % 50 == 0)
      std::printf("step %3d  %3.0f%%  %.2f bits a byte\n", static_cast<int>(progress.step),
                  100 * progress.done, progress.bits);
    return true;  // false would end the training here
  };
  const longstride::Model model = longstride::train(longstride::bytes_of(text), options);

  std::cout << model.parameters() << " parameters; 20 21 22 ";
  for (const uint8_t byte :
       model.generate(longstride::bytes_of("20 21 22 "), {.count = 24, .temperature = 0}))
    std::cout << static_cast<char>(byte);
  std::cout << "\n";
} catch (const longstride::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
