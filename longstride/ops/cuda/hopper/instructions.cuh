// What Hopper (sm_90a) adds for the kernels here: barriers in shared memory, tiles copied by the tensor memory
// accelerator (TMA), descriptors of tiles for wgmma. Sources: the PTX ISA, "mbarrier",
// "cp.async.bulk.tensor", "Asynchronous warpgroup level matrix instructions".
#pragma once

#include <cuda.h>

#include "longstride/ops/cuda/hopper/wgmma.cuh"
#include "longstride/ops/cuda/mma.cuh"

namespace longstride::cuda::hopper {

inline constexpr int kWarpgroup = 4 * kWarp;
inline constexpr int kRows = 64;  // of a tile: what a warpgroup multiplies at once

// ---- barriers ----

__device__ inline void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the initialisation, before other threads or the TMA use the barriers.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// The same `count` times.
__device__ inline void arrive(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// Once for each warp, by its first lane, after __syncwarp: what the other lanes did comes before by that. racecheck of
// compute-sanitizer does not follow the order from lane to lane, and takes a buffer that every lane has read for one that is
// overwritten too early. LONGSTRIDE_RACECHECK is a build for it, in which each lane arrives for itself.
#ifdef LONGSTRIDE_RACECHECK
inline constexpr int kArrivalsOfWarp = kWarp;
#else
inline constexpr int kArrivalsOfWarp = 1;
#endif
__device__ inline void arrive_of_warp(uint32_t barrier, int lane) {
  if (kArrivalsOfWarp > 1 || lane == 0) arrive(barrier);
}
// Arrives, and lets the phase end only when the TMA has written this many bytes more.
__device__ inline void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Arrives when this thread's copies by cp.async so far have landed.
__device__ inline void arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Waits for the end of the phase of this parity; a fresh barrier has ended one of parity 1.
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "bra again;\n"
      "done: }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// What this thread wrote to shared memory is seen by the TMA and wgmma, once the threads are ordered.
__device__ inline void publish_to_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier of `threads` threads, by number; 0 is __syncthreads'.
__device__ inline void sync_some(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Registers of each thread of this warpgroup from here on: what some give back, others may take. The sum must
// fit into what the block was launched with.
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A launch may begin before the one in front of it ends: that one lets it, and it waits before it looks at what
// the other leaves.
__device__ inline void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// A place in a ring of buffers, each with its parity.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  __device__ void advance(int places) {
    const int last = stage + places, rounds = last / kStages;
    stage = last - rounds * kStages, parity ^= static_cast<uint32_t>(rounds) & 1;
  }
};

// ---- copies ----

// 8 bytes in the background; zeros if not `present`.
__device__ inline void copy8(uint32_t to, const void* from, bool present) {
  const int bytes = present ? 8 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// A box of a tensor of five dimensions, innermost first; what lies outside becomes zeros.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, const int (&at)[5], uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6, "
      "%7}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
      : "memory");
}

// The same of three dimensions, and the other way, in the background; what lies outside is left out.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, const int (&at)[3], uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(at[0]), "r"(at[1]), "r"(at[2])
      : "memory");
}
__device__ inline void store_box(const CUtensorMap& map, uint32_t from, const int (&at)[3]) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
               "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2])
               : "memory");
}

// Without boxes, in the background: bytes from shared memory to memory, and floats added to what is there.
__device__ inline void store_bytes(void* to, uint32_t from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}
__device__ inline void add_floats(void* to, uint32_t from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(from), "r"(bytes)
               : "memory");
}
// Marks the end of what this thread stored so far; waits until all of it but the last kLeft such groups has been
// read from shared memory, or until all has arrived.
__device__ inline void end_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int kLeft = 0>
__device__ inline void wait_until_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
}
__device__ inline void wait_until_stored() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// ---- tiles ----

// 64 rows of kWidth 16-bit elements in shared memory, from a multiple of 1024 bytes on, as the TMA lays them
// down: panels of up to 64 columns one after the other, whose 16-byte chunks change places from row to row.
template <int kWidth>
struct Panels {
  static constexpr int kColumns = kWidth < 64 ? kWidth : 64, kPanels = kWidth / kColumns;
  static constexpr int kRowBytes = 2 * kColumns, kPanelBytes = kRows * kRowBytes;
  static constexpr int kBytes = kPanels * kPanelBytes;
  static_assert(kColumns == 64 || kColumns == 32);

  __device__ static uint32_t address(uint32_t base, int row, int chunk) {
    constexpr int kChunks = kColumns / 8;
    const int swap = kColumns == 64 ? row & 7 : (row >> 1) & 3;
    return base + static_cast<uint32_t>(chunk / kChunks * kPanelBytes + row * kRowBytes +
                                        (((chunk % kChunks) ^ swap) << 4));
  }
  // Descriptors for wgmma: of all 64 rows by 16 columns, from 16 * step on; and of 16 rows, from 16 * step
  // on, by all columns. `base` should be the same register for a whole warp; see uniform().
  __device__ static uint64_t columns(uint32_t base, int step) {
    return descriptor(base, 16 * step / kColumns * kPanelBytes + 16 * step % kColumns * 2);
  }
  __device__ static uint64_t rows(uint32_t base, int step) { return descriptor(base, 16 * step * kRowBytes); }

 private:
  __device__ static uint64_t descriptor(uint32_t base, int offset) {
    constexpr uint32_t kSwizzle = kColumns == 64 ? 1 : 2, kEightRows = 8 * kRowBytes;
    constexpr uint32_t kHigh = (kSwizzle << 30) | (kEightRows >> 4), kLow = (kPanelBytes >> 4) << 16;
    return (static_cast<uint64_t>(kHigh) << 32) | (kLow + (base >> 4) + static_cast<uint32_t>(offset >> 4));
  }
};

// ---- products ----

// A value that all lanes have alike, in a way that lets the compiler know.
__device__ inline uint32_t uniform(uint32_t x) { return __shfl_sync(0xffffffffu, x, 0); }
__device__ inline int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

// Before the first wgmma after its registers were written otherwise.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most kLeft groups of products are under way.
template <int kLeft>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from moving uses of `d` over this point.
template <int kColumns>
__device__ inline void pin(float (&d)[kColumns][4]) {
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[j][e])::"memory");
}

// d = the rows of tile a times the rows of tile b: (64 x 64), over their kWidth columns.
template <class T, int kWidth>
__device__ inline void row_products(float (&d)[kRows / 8][4], uint32_t tile_a, uint32_t tile_b) {
  using Tile = Panels<kWidth>;
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step)
    product<T, false>(d, Tile::columns(tile_a, step), Tile::columns(tile_b, step), step > 0);
}

// The same with the rows of a in registers.
template <class T, int kWidth>
__device__ inline void row_products(float (&d)[kRows / 8][4], const uint32_t (&a)[kWidth / 16][4],
                                    uint32_t tile_b) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step)
    product<T, false>(d, a[step], Panels<kWidth>::columns(tile_b, step), step > 0);
}

// A warp's 16 rows of a tile as left factors.
template <int kWidth>
__device__ inline void load_rows(uint32_t (&a)[kWidth / 16][4], uint32_t tile, int warp, int lane) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step)
    load_matrices(a[step], Panels<kWidth>::address(tile, 16 * warp + (lane & 15), 2 * step + (lane >> 4)));
}

// The 64 rows of a tile as left factor of row_products().
template <class T, int kWidth, bool kInRegisters>
struct LeftFactor {
  uint32_t tile;
  uint32_t rows[kInRegisters ? kWidth / 16 : 1][4];
  __device__ LeftFactor(uint32_t tile, int warp, int lane) : tile(tile) {
    if constexpr (kInRegisters) load_rows<kWidth>(rows, tile, warp, lane);
  }
  __device__ void multiply(float (&d)[kRows / 8][4], uint32_t other) const {
    if constexpr (kInRegisters)
      row_products<T, kWidth>(d, rows, other);
    else
      row_products<T, kWidth>(d, tile, other);
  }
};

// Left factors to a warp's 16 rows of a tile of 64 columns.
__device__ inline void store_rows(const uint32_t (&a)[kRows / 16][4], uint32_t tile, int warp, int lane) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     Panels<64>::address(tile, 16 * warp + (lane & 15), 2 * step + (lane >> 4))),
                 "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
                 : "memory");
}

// The same to a warp's 16 columns: the tile is transposed.
__device__ inline void store_columns(const uint32_t (&a)[kRows / 16][4], uint32_t tile, int warp, int lane) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step)
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(Panels<64>::address(
            tile, 16 * step + (lane & 7) + 8 * (lane >> 4), 2 * warp + ((lane >> 3) & 1))),
        "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
        : "memory");
}

__device__ inline void store_floats(uint32_t to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

// Element `side` of two rounded ones.
template <class T>
__device__ inline float unpack(uint32_t packed, int side) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __uint_as_float(side == 0 ? packed << 16 : packed & 0xffff0000u);
  const __half2 both = *reinterpret_cast<const __half2*>(&packed);
  return side == 0 ? __low2float(both) : __high2float(both);
}

// What row_products() laid out, rounded to T: the left factor of the next product.
template <class T>
__device__ inline void round_weights(uint32_t (&a)[kRows / 16][4], const float (&weights)[kRows / 8][4]) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step)
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const auto& w = weights[2 * step + side];
      a[step][2 * side] = pack<T>(w[0], w[1]);
      a[step][2 * side + 1] = pack<T>(w[2], w[3]);
    }
}

// d += weights (64 x 64) times the rows of a tile.
template <class T, int kWidth>
__device__ inline void add_weighted_rows(float (&d)[kWidth / 8][4], const uint32_t (&weights)[kRows / 16][4],
                                         uint32_t tile) {
  using Tile = Panels<kWidth>;
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step) product<T, true>(d, weights[step], Tile::rows(tile, step), 1);
}

// d += the transposed tile a (64 x 64, rows of a are what is summed over) times the rows of tile b.
template <class T, int kWidth>
__device__ inline void add_transposed_products(float (&d)[kWidth / 8][4], uint32_t tile_a, uint32_t tile_b) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step)
    product<T, true, true>(d, Panels<64>::rows(tile_a, step), Panels<kWidth>::rows(tile_b, step), 1);
}

// The same with kColumns of the columns of tile b, from `half` of them on: d =, or += where `accumulates`.
template <class T, int kWidth, int kColumns>
__device__ inline void transposed_products(float (&d)[kColumns / 8][4], uint32_t tile_a, uint32_t tile_b,
                                           int half, bool accumulates) {
  using Tile = Panels<kWidth>;
  constexpr int kHalfBytes = Tile::kPanels > 1 ? Tile::kPanels / 2 * Tile::kPanelBytes : Tile::kRowBytes / 2;
  const uint32_t columns = tile_b + static_cast<uint32_t>(half * kHalfBytes);
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step)
    product<T, true, true>(d, Panels<64>::rows(tile_a, step), Tile::rows(columns, step),
                           accumulates || step > 0);
}

}  // namespace longstride::cuda::hopper
