// Vectors of floats as wide as the processor's registers, through the vector extensions of GCC and Clang.
//
// The same source serves every instruction set: `kLanes` follows the -march option of the compilation. Pointers need no
// alignment. Widths of matrices are rounded up to whole vectors (`padded`), and the columns added hold zeros.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace ensue {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#define ENSUE_VECTOR __attribute__((vector_size(4 * kLanes), aligned(4), may_alias))
typedef float Vec ENSUE_VECTOR;
typedef int32_t Ints ENSUE_VECTOR;
typedef uint32_t Words ENSUE_VECTOR;
#undef ENSUE_VECTOR
// The functions that Python calls.
#define ENSUE_EXPORT extern "C" __attribute__((visibility("default")))
#define ENSUE_INLINE static inline __attribute__((always_inline))

ENSUE_INLINE long padded(long n) { return (n + kLanes - 1) / kLanes * kLanes; }

ENSUE_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
ENSUE_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
ENSUE_INLINE Vec splat(float x) { return x - Vec{}; }
ENSUE_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// The value where the mask is all ones, zero where it is zero.
ENSUE_INLINE Vec kept(Ints mask, Vec v) { return (Vec)(mask & (Ints)v); }

// Reductions halve the vector until four lanes are left, so the order of the sum is fixed for an instruction set.
typedef float Four __attribute__((vector_size(16)));

template <class Combine>
ENSUE_INLINE float reduced(Vec v, Combine combine) {
  Four parts[kLanes / 4];
  std::memcpy(parts, &v, sizeof v);
  for (int half = kLanes / 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++)
      for (int lane = 0; lane < 4; lane++) parts[i][lane] = combine(parts[i][lane], parts[i + half][lane]);
  const Four last = parts[0];
  return combine(combine(last[0], last[2]), combine(last[1], last[3]));
}

ENSUE_INLINE float sum(Vec v) {
  return reduced(v, [](float a, float b) { return a + b; });
}
ENSUE_INLINE float largest(Vec v) {
  return reduced(v, [](float a, float b) { return a > b ? a : b; });
}

// e^x for x <= 88, with a relative error of about 1e-7: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r
// (Cephes, expf), and n added to the exponent. Values below -87 count as -87.
ENSUE_INLINE Vec exponential(Vec x) {
  x = larger(x, splat(-87.0f));
  const Vec shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits of the sum hold the rounded n
  const Ints bits = (Ints)shifted;
  const Vec n = shifted - 12582912.0f;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (Vec)((Ints)p + (bits << 23));
}

// The distribution function of the standard normal, P(x), and its density p(x). The error of P is below 1e-7, by
// erf(y) = 1 - (a1 t + ... + a5 t^5) e^(-y^2) with t = 1 / (1 + 0.3275911 y) for y >= 0 (Abramowitz and Stegun 7.1.26).
struct Normal {
  Vec below, density;
};
ENSUE_INLINE Normal normal(Vec x) {
  const Vec y = larger(x, -x) * 0.707106781f, e = exponential(-y * y), t = 1.0f / (1.0f + 0.3275911f * y);
  Vec p = splat(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Vec tail = 0.5f * p * t * e;  // P(-|x|)
  return {x > 0.0f ? 1.0f - tail : tail, 0.398942280f * e};
}

// x[j] = e^(x[j] - top), with the largest value `top`, and their sum; whole vectors are read.
struct Exponentials {
  float top, sum;
};
inline Exponentials exponentials(long count, float* x) {
  Vec most = load(x);
  for (long j = 0; j < count; j += kLanes) most = larger(most, load(x + j));
  const float top = largest(most);
  Vec total = {};
  for (long j = 0; j < count; j += kLanes) {
    const Vec e = exponential(load(x + j) - top);
    total += e;
    store(x + j, e);
  }
  return {top, sum(total)};
}

}  // namespace ensue
