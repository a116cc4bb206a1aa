// Products of small matrices, C = A B, C = A B + bias or C += A B, that stay in the cache.
//
// A is read by strides, so it may be transposed. B and C are row-major, and their number of columns is a multiple of
// kLanes. A block of kRows x kVectors results is kept in registers while k runs. Every element is summed over k in
// ascending order, so a result does not depend on the number of rows of A beside it.
#pragma once
#include "vector.h"

namespace ensue {

constexpr int kRows = 6;
constexpr int kVectors = kLanes == 8 ? 2 : 4;  // AVX2 has 16 registers, the others 32
constexpr long kDepth = 128;                   // rows of B that are used before the next ones are read

// Element (i, k) is at[i * row + k * column].
struct Left {
  const float* at;
  long row, column;
  Left from(long i, long k) const { return {at + i * row + k * column, row, column}; }
};
ENSUE_INLINE Left rows_of(const float* at, long stride) { return {at, stride, 1}; }
ENSUE_INLINE Left columns_of(const float* at, long stride) { return {at, 1, stride}; }

// What a product starts from: the result so far, zero, or a row of biases.
struct Start {
  bool adds;
  const float* bias;
  Start from(long column) const { return {adds, bias ? bias + column : nullptr}; }
};
constexpr Start kAdd{true, nullptr}, kZero{false, nullptr};
ENSUE_INLINE Start with_bias(const float* bias) { return {false, bias}; }

template <int R, int P>
ENSUE_INLINE void register_block(long depth, Left a, const float* b, long b_row, float* c, long c_row, Start start) {
  Vec total[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++)
      total[r][p] = start.adds   ? load(c + r * c_row + p * kLanes)
                    : start.bias ? load(start.bias + p * kLanes)
                                 : Vec{};
  for (long k = 0; k < depth; k++) {
    Vec right[P];
    for (int p = 0; p < P; p++) right[p] = load(b + k * b_row + p * kLanes);
    for (int r = 0; r < R; r++) {
      const float left = a.at[r * a.row + k * a.column];
      for (int p = 0; p < P; p++) total[r][p] += left * right[p];
    }
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) store(c + r * c_row + p * kLanes, total[r][p]);
}

template <int P>
ENSUE_INLINE void row_block(long rows, long depth, Left a, const float* b, long b_row, float* c, long c_row, Start s) {
  static_assert(kRows == 6, "one case for each number of rows");
  switch (rows) {
    case 1: return register_block<1, P>(depth, a, b, b_row, c, c_row, s);
    case 2: return register_block<2, P>(depth, a, b, b_row, c, c_row, s);
    case 3: return register_block<3, P>(depth, a, b, b_row, c, c_row, s);
    case 4: return register_block<4, P>(depth, a, b, b_row, c, c_row, s);
    case 5: return register_block<5, P>(depth, a, b, b_row, c, c_row, s);
    case 6: return register_block<6, P>(depth, a, b, b_row, c, c_row, s);
  }
}

// The columns of at most kRows rows that do not fill a block of kVectors.
inline void last_columns(long rows, long columns, long depth, Left a, const float* b, long b_row, float* c, long c_row,
                         Start s) {
  switch (columns / kLanes) {
    case 1: return row_block<1>(rows, depth, a, b, b_row, c, c_row, s);
    case 2: return row_block<2>(rows, depth, a, b, b_row, c, c_row, s);
    case 3: return row_block<3>(rows, depth, a, b, b_row, c, c_row, s);
  }
}

// C for at most kRows rows of A; the whole depth at once.
inline void few_rows(long rows, long columns, long depth, Left a, const float* b, long b_row, float* c, long c_row,
                     Start s) {
  long n = 0;
  for (; n + kVectors * kLanes <= columns; n += kVectors * kLanes)
    row_block<kVectors>(rows, depth, a, b + n, b_row, c + n, c_row, s.from(n));
  last_columns(rows, columns - n, depth, a, b + n, b_row, c + n, c_row, s.from(n));
}

// C [rows, columns] from A [rows, depth] and B [depth, columns].
inline void product(long rows, long columns, long depth, Left a, const float* b, long b_row, float* c, long c_row,
                    Start start) {
  long k = 0;
  do {
    const long steps = std::min(kDepth, depth - k);
    const Start s = k ? kAdd : start;
    const float* right = b + k * b_row;
    long n = 0;
    for (; n + kVectors * kLanes <= columns; n += kVectors * kLanes)
      for (long i = 0; i < rows; i += kRows)
        row_block<kVectors>(std::min<long>(kRows, rows - i), steps, a.from(i, k), right + n, b_row, c + i * c_row + n,
                            c_row, s.from(n));
    if (n < columns)
      for (long i = 0; i < rows; i += kRows)
        last_columns(std::min<long>(kRows, rows - i), columns - n, steps, a.from(i, k), right + n, b_row,
                     c + i * c_row + n, c_row, s.from(n));
    k += kDepth;
  } while (k < depth);
}

}  // namespace ensue
