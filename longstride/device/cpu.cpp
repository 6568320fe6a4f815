// The processor that this process runs on.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include <sys/mman.h>

#include "longstride/base/check.h"
#include "longstride/base/cpu_memory.h"
#include "longstride/base/text.h"
#include "longstride/base/threads.h"
#include "longstride/device/backend.h"
#include "longstride/device/instructions.h"

namespace longstride {

bool cpu_has_bf16() { return may_use(Instructions::avx512_bf16); }

std::string describe_cpu() {
  std::string name = "unknown CPU", line;
  std::ifstream info("/proc/cpuinfo");
  while (std::getline(info, line)) {
    if (!line.starts_with("model name")) continue;
    name = trim(std::string_view(line).substr(line.find(':') + 1));
    break;
  }
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    name += ", AVX-512";
  else if (__builtin_cpu_supports("avx2"))
    name += ", AVX2";
  if (__builtin_cpu_supports("avx512bf16")) name += ", AVX512-BF16";
  if (instructions_of_cpu().back() == Instructions::amx) name += ", AMX";
#endif
  return name;
}

namespace cpu {

namespace {

constexpr size_t kAlignment = 64;
// Large buffers are mapped directly, so that untouched pages cost nothing and freed pages return to the
// system.
constexpr int64_t kMapFrom = int64_t{1} << 20;

class Cpu : public Backend {
 public:
  int count() const override { return 1; }
  std::string why_not(int index) const override {
    return index == 0 ? "" : "this machine's processors are one device; use cpu";
  }
  std::string describe(int) const override { return describe_cpu(); }

  // 16-bit floats of the other kind are converted nowhere in hardware that we run on.
  std::span<const DType> product_dtypes() const override {
    static constexpr std::array kDtypes{DType::f32, DType::bf16};
    return kDtypes;
  }

  DeviceMemory memory(int) const override {
    const CpuMemory memory = cpu_memory();
    return {memory.free, memory.most};
  }

  void* allocate(int, int64_t bytes) const override {
    if (bytes >= kMapFrom) {
      void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      LONGSTRIDE_CHECK(memory != MAP_FAILED, "not enough memory for {}: {}", human_bytes(bytes),
                       last_system_error());
      madvise(memory, bytes, MADV_HUGEPAGE);
      return memory;
    }
    const size_t rounded = (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    void* memory = std::aligned_alloc(kAlignment, rounded);
    LONGSTRIDE_CHECK(memory != nullptr, "not enough memory for {}", human_bytes(bytes));
    std::memset(memory, 0, rounded);
    return memory;
  }

  void release(int, void* data, int64_t bytes) const noexcept override {
    if (bytes >= kMapFrom)
      munmap(data, bytes);
    else
      std::free(data);
  }

  void copy(void* to, const void* from, int64_t bytes) const override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  void fill_zero(void* data, int64_t bytes) const override {
    const int64_t chunk = int64_t{1} << 20;
    parallel_for((bytes + chunk - 1) / chunk, [&](int64_t i) {
      std::memset(static_cast<char*>(data) + i * chunk, 0,
                  static_cast<size_t>(std::min(chunk, bytes - i * chunk)));
    });
  }
};

}  // namespace

}  // namespace cpu

template <>
const Backend& backend_of<DeviceKind::cpu>() {
  static const cpu::Cpu cpu;
  return cpu;
}

}  // namespace longstride
