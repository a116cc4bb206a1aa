// Copies between layouts of rows.
#pragma once
#include "vector.h"

namespace ensue {

// to [columns, padded(rows)] = scale * from^T; the rows added are zero.
inline void transpose(long rows, long columns, const float* from, long stride, float scale, float* to) {
  const long padded_rows = padded(rows);
  for (long r = 0; r < rows; r++)
    for (long c = 0; c < columns; c++) to[c * padded_rows + r] = from[r * stride + c] * scale;
  for (long c = 0; c < columns; c++)
    for (long r = rows; r < padded_rows; r++) to[c * padded_rows + r] = 0;
}

// Rows of `width` columns to rows of `stride` columns, or back; columns added are zero.
inline void widen(long count, long width, long stride, const float* from, float* to) {
  for (long i = 0; i < count; i++) {
    std::memcpy(to + i * stride, from + i * width, width * sizeof(float));
    for (long c = width; c < stride; c++) to[i * stride + c] = 0;
  }
}
inline void narrow(long count, long width, long stride, const float* from, float* to) {
  for (long i = 0; i < count; i++) std::memcpy(to + i * width, from + i * stride, width * sizeof(float));
}

}  // namespace ensue
