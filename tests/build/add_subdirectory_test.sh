#!/usr/bin/env bash
# A project around longstride: it configures, links a library, gets neither our warnings nor our tests, and finds packages that
# longstride uses too. usage: add_subdirectory_test.sh SCRATCH_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
cat >CMakeLists.txt <<EOF
cmake_minimum_required(VERSION 3.22)
project(around LANGUAGES CXX)
enable_testing()
find_package(ZLIB REQUIRED)
set(LONGSTRIDE_CUDA OFF)
add_subdirectory("$tree" longstride)
find_package(fmt REQUIRED)
find_package(hwy REQUIRED)
find_package(PNG REQUIRED)
add_executable(app app.cpp)
target_link_libraries(app PRIVATE longstride::pattern ZLIB::ZLIB)
EOF
# -Wall would warn of `unused`.
cat >app.cpp <<'EOF'
#include "longstride/pattern/pattern.h"
int main() {
  int unused;
  longstride::parse_pattern("window:2");
}
EOF
cmake -G Ninja -S . -B build -DCMAKE_BUILD_TYPE=Debug >configure.log 2>&1 || { cat configure.log; exit 1; }

fail() { echo "add_subdirectory: $1"; exit 1; }
ctest --test-dir build -N | grep -q 'Total Tests: 0' || fail "its tests are tests of the project around it"
ninja -C build -t commands app | grep app.cpp >commands || fail "no command compiles app.cpp"
! grep -q -e -Wall commands || fail "its warnings are passed on: $(cat commands)"
grep -qE 'std=(c|gnu)\+\+(20|2a)' commands || fail "C++20 is not passed on: $(cat commands)"
ninja -C build app >build.log 2>&1 || { cat build.log; exit 1; }
! grep -q warning: build.log || fail "a warning: $(cat build.log)"
cmake --install build --prefix "$scratch/installed" >install.log
[ ! -e installed/bin/longstride ] || fail "it is installed with the project around it"
echo "add_subdirectory: ok"
