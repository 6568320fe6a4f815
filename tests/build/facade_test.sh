#!/usr/bin/env bash
# longstride as a library in three ways, and the examples: installed and found by CMake, installed and found by pkg-config,
# and as a folder of another project. usage: facade_test.sh SCRATCH_FOLDER BUILD_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
fail() { echo "facade: $1"; exit 1; }
quietly() { "$@" >log 2>&1 || { cat log; fail "$*"; }; }
says() {  # says TEXT COMMAND...: the command succeeds and says that
  local text=$1 output
  shift
  output=$("$@" 2>&1) || fail "$*: $output"
  [[ "$output" == *"$text"* ]] || fail "$*: no '$text' in: $output"
}

# Built where it was not installed to: the tree can be moved.
quietly cmake --install "$2" --prefix "$scratch/elsewhere"
mv elsewhere prefix
[ "$(cd prefix && find include -type f | LC_ALL=C sort | tr '\n' ' ')" = "include/longstride/base/error.h include/longstride/longstride.h " ] ||
  fail "other headers than the public ones are installed: $(find prefix/include -type f)"
grep -rl "$tree" prefix/lib*/cmake prefix/lib*/pkgconfig && fail "what is installed names the folder of the sources"

# find_package. -Werror is the example's, and the header has no warning.
quietly cmake -G Ninja -S "$tree/examples" -B examples -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror"
quietly ninja -C examples
! ninja -C examples -t commands score | grep -q -e -fno-math-errno || fail "our flags are passed on"
says ' 100%  ' examples/train_on_memory run
says 'parameters; 20 21 22 23 24 25 26 27 28 29 30' examples/train_on_memory
says '40 41 42 4' examples/generate run '40 41 42 ' 10
says 'and back' examples/score run '10 11 12 13 14 15 '
says '1856 pairs; o[0] = 1.0000, which is v[0] = 1.0000; dv sums to 2048.0 of 2048' examples/attention
examples/attention fixd:16,4 2>log && fail "an unknown pattern is no error"
grep -q '^  ^^^^$' log || fail "no caret: $(cat log)"
examples/generate nowhere 2>log && fail "no run is no error"
[ "$(wc -l <log)" = 1 ] || fail "not one line: $(cat log)"
mkdir other && cat >other/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.22)
project(other LANGUAGES CXX)
find_package(longstride 99)
if(longstride_FOUND)
  message(FATAL_ERROR "version 99 is found")
endif()
END
quietly cmake -S other -B other/build -DCMAKE_PREFIX_PATH="$scratch/prefix"

# pkg-config, whose words a shell splits at spaces: a link to the prefix without any.
link=$(mktemp -d)
trap 'rm -rf "$link"' EXIT
ln -s "$scratch/prefix" "$link/prefix"
words=$(PKG_CONFIG_PATH=$(dirname "$(find "$link/prefix/" -name longstride.pc)") pkg-config --cflags --libs --static longstride)
quietly c++ -std=c++20 "$tree/examples/attention.cpp" $words -o attention
says '1856 pairs' ./attention

# add_subdirectory, configured: one line links it, and neither our headers nor our flags come along.
mkdir around && cat >around/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.22)
project(around LANGUAGES CXX)
set(LONGSTRIDE_CUDA OFF)
add_subdirectory("$tree" longstride)
add_executable(app "$tree/examples/attention.cpp")
target_link_libraries(app PRIVATE longstride::longstride)
END
quietly cmake -G Ninja -S around -B around/build
ninja -C around/build -t commands app | grep 'attention.cpp.o -c .*examples/attention.cpp' >command || fail "nothing compiles the example"
! grep -qE -e '-Wall|-fno-math-errno|LONGSTRIDE_' command || fail "our flags are passed on: $(cat command)"
! grep -q -e "-I\"\?$tree\"\? " command || fail "our own headers are seen: $(cat command)"
echo "facade: ok"
