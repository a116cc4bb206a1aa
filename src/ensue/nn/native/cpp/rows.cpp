// Operations on rows of a table: products with candidates, and sums of gradients by row.
#include "threads.h"
#include "vector.h"

using namespace ensue;

namespace {

constexpr long kChunk = 256;  // rows of a job

float dot(long width, const float* a, const float* b) {
  Vec total = {};
  long c = 0;
  for (; c + kLanes <= width; c += kLanes) total += load(a + c) * load(b + c);
  float rest = sum(total);
  for (; c < width; c++) rest += a[c] * b[c];
  return rest;
}

// y += factor * x
void add_scaled(long width, float factor, const float* x, float* y) {
  long c = 0;
  for (; c + kLanes <= width; c += kLanes) store(y + c, load(y + c) + factor * load(x + c));
  for (; c < width; c++) y[c] += factor * x[c];
}

template <class Job>
void each_row(int threads, long count, Job job) {
  parallel(threads, (count + kChunk - 1) / kChunk, [&](long chunk) {
    for (long row = chunk * kChunk; row < std::min(count, (chunk + 1) * kChunk); row++) job(row);
  });
}

}  // namespace

// logits [count, candidates]: the products of each state h [count, width] with its own candidates' vectors.
ENSUE_EXPORT void ensue_candidates(int32_t threads, int64_t count, int64_t candidates, int64_t width, const float* h,
                                   const float* vectors, float* logits) {
  each_row(threads, count, [&](long row) {
    for (long k = 0; k < candidates; k++) {
      const long place = row * candidates + k;
      logits[place] = dot(width, h + row * width, vectors + place * width);
    }
  });
}

// The gradients of `ensue_candidates`: of the states and of the vectors.
ENSUE_EXPORT void ensue_candidates_backward(int32_t threads, int64_t count, int64_t candidates, int64_t width,
                                            const float* h, const float* vectors, const float* grad, float* grad_h,
                                            float* grad_vectors) {
  each_row(threads, count, [&](long row) {
    std::memset(grad_h + row * width, 0, width * sizeof(float));
    for (long place = row * candidates; place < (row + 1) * candidates; place++) {
      add_scaled(width, grad[place], vectors + place * width, grad_h + row * width);
      std::memset(grad_vectors + place * width, 0, width * sizeof(float));
      add_scaled(width, grad[place], h + row * width, grad_vectors + place * width);
    }
  });
}

// table[rows[i]] += values[i] for i in ascending order. Every thread has its own range of the table's rows.
ENSUE_EXPORT void ensue_add_rows(int32_t threads, int64_t table_rows, int64_t width, int64_t count, const int64_t* rows,
                                 const float* values, float* table) {
  const long parts = std::max<long>(threads, 1);
  parallel(threads, parts, [&](long part) {
    const int64_t first = table_rows * part / parts, stop = table_rows * (part + 1) / parts;
    for (int64_t i = 0; i < count; i++)
      if (rows[i] >= first && rows[i] < stop) add_scaled(width, 1.0f, values + i * width, table + rows[i] * width);
  });
}
