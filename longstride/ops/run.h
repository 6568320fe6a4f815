// How an op runs: the one place that chooses an implementation by device.
//
// A call of an op is a struct in the op's header. It has the tensors and numbers, in the order of the
// contract, and
//   const char* name() const;              its name in messages and in the profile
//   OpWork work() const;                   the least work of the call, for the profile
//   void check(const Arguments&) const;    throws Error for what the op cannot take
// A call that uses scratch says so by kUsesScratch; one that only the CPU has, by kOnCpuOnly.
//
// A backend is a namespace with a specialisation of compute() for each call, in the file of the op. A call
// that it lacks does not link. The list of backends is base/backends.h. compute() is given arguments that were
// checked before. With a scratch arena that measures, it allocates what it would use and returns.
#pragma once

#include "longstride/ops/arguments.h"
#include "longstride/ops/context.h"
#include "longstride/ops/profile.h"

namespace longstride {

template <class Call>
concept UsesScratch = Call::kUsesScratch;
template <class Call>
concept OnCpuOnly = Call::kOnCpuOnly;

// Computes without checking the arguments.
template <class Call>
void dispatch(const OpContext& context, const Call& call) {
  const auto compute = [&]<DeviceKind kind>() {
    if constexpr (kind == DeviceKind::cpu || !OnCpuOnly<Call>)
      OpsOf<kind>::compute(context, call);
    else
      fail("this op runs on the CPU only");
  };
  with_backend(context.device.kind, compute,
               [&] { fail("{}", backend(context.device).why_not(context.device.index)); });
}

// Bytes of context.scratch that the call uses: those that the code which computes it allocates. Reads only
// shapes, dtypes and numbers of the call.
template <class Call>
int64_t scratch_bytes(Device device, const Call& call) {
  if constexpr (UsesScratch<Call>) {
    check_device(call.name(), device);
    Arena scratch = Arena::measuring(device);
    dispatch({device, &scratch}, call);
    return scratch.peak();
  }
  return 0;
}

// Runs the call, or throws Error before anything is written.
template <class Call>
void run(const OpContext& context, const Call& call) {
  const OpTimer timer(call.name(), call.work());
  const Arguments arguments(call.name(), context.device);
  if constexpr (OnCpuOnly<Call>) arguments.on_cpu();
  call.check(arguments);
  if constexpr (UsesScratch<Call>) arguments.scratch(context, scratch_bytes(context.device, call));
  dispatch(context, call);
}

}  // namespace longstride
