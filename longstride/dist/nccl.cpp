#include "longstride/dist/nccl.h"

#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include <dlfcn.h>
#include <nccl.h>

#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/device/cuda.h"

namespace longstride {

namespace {

// The functions of NCCL that are called here.
struct Library {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) comm_init;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclCommGetAsyncError) comm_error;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
};

constexpr const char* kName = "libnccl.so.2";
constexpr int kOldest = 21400;  // the first with ncclCommInitRankConfig

template <class Function>
void find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  LONGSTRIDE_CHECK(function != nullptr, "{} has no {}; install a newer NCCL", kName, name);
}

// Loaded at the first call, for the life of the process.
const Library& library() {
  static const Library loaded = [] {
    // It is not what its kernels may add in whose order: NVLink's own sums are not used.
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    // Nothing runs beside the graphs.
    setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0);
    void* const handle = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr)
      fail(
          "NCCL, which joins GPUs, cannot be loaded ({}); install libnccl2, or put its folder in "
          "LD_LIBRARY_PATH",
          dlerror());
    Library l{};
    find(handle, "ncclGetVersion", l.get_version);
    int version = 0;
    l.get_version(&version);
    LONGSTRIDE_CHECK(version >= kOldest, "NCCL {}.{} is too old to join GPUs; install 2.14 or newer",
                     version / 10000, version / 100 % 100);
    find(handle, "ncclGetUniqueId", l.get_unique_id);
    find(handle, "ncclCommInitRankConfig", l.comm_init);
    find(handle, "ncclCommAbort", l.comm_abort);
    find(handle, "ncclCommGetAsyncError", l.comm_error);
    find(handle, "ncclSend", l.send);
    find(handle, "ncclRecv", l.receive);
    find(handle, "ncclGroupStart", l.group_start);
    find(handle, "ncclGroupEnd", l.group_end);
    find(handle, "ncclGetErrorString", l.error_string);
    find(handle, "ncclGetLastError", l.last_error);
    return l;
  }();
  return loaded;
}

void check(ncclResult_t status, const char* call) {
  if (status == ncclSuccess) return;
  const char* more = library().last_error(nullptr);
  fail("NCCL: {} in {}{}{}", library().error_string(status), call, more != nullptr && *more != 0 ? ": " : "",
       more != nullptr ? more : "");
}

class Nccl : public DeviceComm {
 public:
  Nccl(Comm& comm, Device device) {
    backend(device).use(device.index);
    std::string why;
    ncclUniqueId id{};
    try {
      if (comm.rank() == 0) check(library().get_unique_id(&id), "ncclGetUniqueId");
    } catch (const Error& failure) {
      why = failure.what();
    }
    agree(comm, why);
    comm.broadcast(&id, sizeof(id));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    try {
      check(library().comm_init(&comm_, comm.size(), id, comm.rank(), &config), "ncclCommInitRankConfig");
    } catch (const Error& failure) {
      why = failure.what();
    }
    agree(comm, why);
  }
  // Not ncclCommDestroy, which would wait for ranks that are gone.
  ~Nccl() override {
    abandon();
    if (abandoning_.joinable()) abandoning_.join();
  }
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    LONGSTRIDE_CHECK(comm_ != nullptr, "a rank is gone");
    const auto stream = static_cast<cudaStream_t>(cuda::stream());
    check(library().group_start(), "ncclGroupStart");
    for (const Outgoing& piece : out)
      check(library().send(piece.data, static_cast<size_t>(piece.bytes), ncclInt8, piece.rank, comm_, stream),
            "ncclSend");
    for (const Incoming& piece : in)
      check(library().receive(piece.data, static_cast<size_t>(piece.bytes), ncclInt8, piece.rank, comm_,
                              stream),
            "ncclRecv");
    check(library().group_end(), "ncclGroupEnd");
  }

  std::string trouble() override {
    ncclResult_t status = ncclSuccess;
    if (comm_ == nullptr || library().comm_error(comm_, &status) != ncclSuccess)
      return "NCCL does not answer";
    return status == ncclSuccess || status == ncclInProgress
               ? std::string()
               : std::string("NCCL: ") + library().error_string(status);
  }

  // Its kernels end at once. But the call returns only when no graph holds any of them, and whoever has the
  // graph may be waiting for us.
  void abandon() noexcept override {
    if (comm_ != nullptr)
      abandoning_ = std::thread([comm = std::exchange(comm_, nullptr)] { library().comm_abort(comm); });
  }

 private:
  ncclComm_t comm_ = nullptr;
  std::thread abandoning_;
};

}  // namespace

void load_nccl() { library(); }

std::unique_ptr<DeviceComm> join_nccl(Comm& comm, Device device) {
  return std::make_unique<Nccl>(comm, device);
}

}  // namespace longstride
