// The sum of all gradients over ranks, as a training step takes it, without the step around it.
//
//   bench_ranks --ranks N [--device cuda|cpu] [--gradients COUNT]
//   torchrun, mpirun ... bench_ranks [--device cuda|cpu] [--gradients COUNT]
//
// Prints the median of 20 sums, from a recorded graph on a GPU, and the bytes that each rank sends a second. The
// floor is those bytes over the rate of the wires; bench/torch_allreduce.py measures NCCL's own all-reduce.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "longstride/device/backend.h"
#include "longstride/device/memory.h"
#include "longstride/dist/comm.h"
#include "longstride/dist/device_comm.h"
#include "longstride/dist/launch.h"
#include "longstride/dist/spawn.h"
#include "longstride/train/gradient_sum.h"

#include "bench/measure.h"

namespace longstride {
namespace {

constexpr int kWarmUp = 3, kTimed = 20;

void measure(Comm& comm, const std::string& device_name, int64_t count) {
  const std::string no_device = take_own_device(comm).no_device;
  LONGSTRIDE_CHECK(no_device.empty(), "{}", no_device);
  const Device device = parse_device(device_name);
  const Buffer memory(device, count * static_cast<int64_t>(sizeof(float)));
  const Buffer control(device, sizeof(UpdateControl));
  const Tensor gradients(memory.data(), DType::f32, {count}, device.kind);
  const std::unique_ptr<GradientSum> sum = gradient_sum(comm, join_devices(comm, device), device, gradients);
  const auto queue = [&] {
    sum->ready(0, count);
    sum->finish(static_cast<UpdateControl*>(control.data()));
  };
  std::unique_ptr<Graph> graph;
  std::vector<double> seconds;
  for (int i = 0; i < kWarmUp + kTimed; ++i) {
    if (i > 0 && backend(device).has_graphs() && !graph) graph = backend(device).record(queue);
    agree(comm, "");  // all begin together
    const double taken = seconds_of([&] {
      graph ? graph->launch() : queue();
      sum->wait();
    });
    if (i >= kWarmUp) seconds.push_back(taken);
  }
  if (comm.rank() > 0) return;
  const double taken = median(seconds);
  const double sent = 2.0 * (comm.size() - 1) / comm.size() * static_cast<double>(memory.bytes());
  fmt::print("{} ranks on {}: {} gradients in {:.3f} ms, {:.0f} GB/s out of each rank\n", comm.size(),
             name_of(device), count, 1e3 * taken, 1e-9 * sent / taken);
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  std::string device = "cuda";
  int ranks = 1;
  int64_t count = 94949888;
  int status = 0;
  const Options options{{"--device", [&](const std::string& value) { device = value; }},
                        {"--ranks", [&](const std::string& value) { ranks = std::stoi(value); }},
                        {"--gradients", [&](const std::string& value) { count = std::stoll(value); }}};
  const int failed = run_benchmark("bench_ranks", argc, argv, options, [&] {
    if (ranks > 1 && launch_of_environment().launcher == Launcher::none) {
      status = run_ranks(ranks, argv);
      return;
    }
    const std::unique_ptr<Comm> comm = join_ranks();
    LONGSTRIDE_CHECK(comm->size() > 1, "one rank has nobody to add up with; say --ranks 2");
    measure(*comm, device, count);
  });
  return failed != 0 ? failed : status;
}
