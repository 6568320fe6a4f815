// Element types of tensors, the two 16-bit float formats, and the choice of a template by a runtime dtype.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "longstride/base/check.h"
#include "longstride/base/host_device.h"

namespace longstride {

enum class DType : uint8_t { f64, f32, bf16, f16, i32, u8, i8 };

int64_t size_of(DType dtype);              // bytes of one element
std::string_view name_of(DType dtype);     // "f32"
DType parse_dtype(std::string_view name);  // inverse of name_of; throws Error

// bfloat16: the upper half of a float, rounded to nearest even; NaN stays NaN.
struct Bf16 {
  uint16_t bits = 0;
  Bf16() = default;
  LONGSTRIDE_HOST_DEVICE explicit Bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  LONGSTRIDE_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// IEEE half precision. _Float16 is not available everywhere, so the conversion is spelled out in dtype.cpp.
struct F16 {
  uint16_t bits = 0;
  F16() = default;
  explicit F16(float value);
  explicit operator float() const;
};

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, Bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, F16>) return DType::f16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, int8_t>) return DType::i8;
}

}  // namespace longstride
