#include "longstride/device/backend.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>

#include "longstride/base/check.h"

namespace longstride {

namespace {

// Stands in for a backend that this build lacks.
class Absent : public Backend {
 public:
  Absent() = default;
  explicit Absent(DeviceKind kind) : kind_(kind) {}
  int count() const override { return 0; }
  std::string why_not(int) const override {
    std::string name = name_of(kind_);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return fmt::format("this longstride was built without {}; use --device cpu", name);
  }
  std::string describe(int) const override { unavailable(); }
  void use(int) const override { unavailable(); }
  // No types at all: then the op itself says that the backend is missing, not that it lacks a type.
  std::span<const DType> product_dtypes() const override { return {}; }
  DeviceMemory memory(int) const override { unavailable(); }
  void* allocate(int, int64_t) const override { unavailable(); }
  void release(int, void*, int64_t) const noexcept override {}
  void* allocate_pinned(int64_t) const override { unavailable(); }
  void copy(void*, const void*, int64_t) const override { unavailable(); }
  void fill_zero(void*, int64_t) const override { unavailable(); }
  void synchronize() const override { unavailable(); }

 private:
  [[noreturn]] void unavailable() const { fail("{}", why_not(0)); }
  DeviceKind kind_ = DeviceKind::cpu;
};

class ClockMoment : public Moment {
 public:
  double seconds_since(const Moment& begin) const override {
    const auto& earlier = dynamic_cast<const ClockMoment&>(begin);
    return std::chrono::duration<double>(at_ - earlier.at_).count();
  }

 private:
  std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};

class InOrder : public SideStream {
 public:
  explicit InOrder(const Backend& backend) : backend_(backend) {}
  void follow() const override {}
  void run(const std::function<void()>& work) const override { work(); }
  void copy(void* to, const void* from, int64_t bytes) const override { backend_.copy(to, from, bytes); }
  void mark(int) const override {}
  void await(int) const override {}

 private:
  const Backend& backend_;
};

}  // namespace

bool Backend::has_product(DType dtype) const {
  const std::span<const DType> dtypes = product_dtypes();
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
}

void* Backend::allocate_pinned(int64_t bytes) const { return backend(DeviceKind::cpu).allocate(0, bytes); }

void Backend::release_pinned(void* data, int64_t bytes) const noexcept {
  backend(DeviceKind::cpu).release(0, data, bytes);
}

void Backend::run_on(void*, const std::function<void()>&) const {
  fail("a stream of the caller's: this device has none");
}

std::unique_ptr<Moment> Backend::moment() const {
  synchronize();
  return std::make_unique<ClockMoment>();
}

std::unique_ptr<Graph> Backend::record(const std::function<void()>&) const {
  fail("{} cannot record work", describe(0));
}

std::unique_ptr<SideStream> Backend::side_stream(int) const { return std::make_unique<InOrder>(*this); }

const Backend& backend(DeviceKind kind) {
  return with_backend(
      kind, []<DeviceKind built>() -> const Backend& { return backend_of<built>(); },
      [&]() -> const Backend& {
        static const std::array absent = [] {
          std::array<Absent, kBackends.size()> all;
          for (size_t i = 0; i < all.size(); ++i) all[i] = Absent(kBackends[i].kind);
          return all;
        }();
        return absent.at(static_cast<size_t>(kind));
      });
}

}  // namespace longstride
