// Stands in for mpi.cpp in a build without MPI.
#include "longstride/base/check.h"
#include "longstride/dist/launch.h"

namespace longstride {

bool has_mpi() { return false; }
std::unique_ptr<Comm> join_mpi(const Launch&) { fail("this longstride was built without MPI"); }

}  // namespace longstride
