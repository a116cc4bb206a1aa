// Cross-entropy over the whole catalogue with its gradients, for a chunk of states at a time.
//
// The logits of a chunk are computed by rows, become probabilities and then gradients in place, and are added to the
// gradient of the items by ranges of items. Every sum has a fixed order, so its bits do not depend on the threads.
#include "arena.h"
#include "copies.h"
#include "product.h"
#include "threads.h"

using namespace ensue;

namespace {

constexpr long kJobRows = 32, kJobItems = 512;

struct Softmax {
  int32_t threads;
  long count, width, stride, items, padded_items;
  const float *h, *item_rows, *item_columns;  // states [count, stride], items [items, stride] and [width, padded_items]
  const int64_t* target;
  const float* upstream;  // of each loss; null if no gradient is wanted
  float *logits, *loss, *grad_h, *grad_items;

  // Logits, losses and the states' gradients of rows first .. first + rows - 1; `z` is their place in the chunk.
  void rows(long first, long rows, float* z) const {
    for (long j = 0; j < padded_items; j += kJobItems)
      product(rows, std::min(kJobItems, padded_items - j), width, rows_of(h + first * stride, stride), item_columns + j,
              padded_items, z + j, padded_items, kZero);
    for (long r = 0; r < rows; r++) {
      float* row = z + r * padded_items;
      for (long j = items; j < padded_items; j++) row[j] = -1e30f;
      const float own = row[target[first + r]];
      const auto [top, whole] = exponentials(padded_items, row);
      loss[first + r] = top + std::log(whole) - own;
      if (!upstream) continue;
      const float weight = upstream[first + r], factor = weight / whole;
      for (long j = 0; j < padded_items; j += kLanes) store(row + j, load(row + j) * factor);
      row[target[first + r]] -= weight;
    }
    if (upstream)
      product(rows, stride, items, rows_of(z, padded_items), item_rows, stride, grad_h + first * stride, stride, kZero);
  }
};

}  // namespace

// Losses [count] for states h [count, width], items [items, width] and targets (rows of the items). With `upstream`,
// also the gradients of states and items.
ENSUE_EXPORT void ensue_cross_entropy(int32_t threads, int64_t count, int64_t width, int64_t items, int64_t chunk,
                                      const float* h, const float* table, const int64_t* target, const float* upstream,
                                      float* loss, float* grad_h, float* grad_table) {
  Arena& arena = Arena::own();
  const Mark mark(arena);
  const long stride = padded(width), columns = padded(items);
  float *wide_h = arena.take(count * stride), *wide_grad = arena.take(upstream ? count * stride : 0);
  float *rows = arena.take(items * stride), *transposed = arena.take(width * columns);
  float *grad_rows = arena.take(upstream ? items * stride : 0), *logits = arena.take(chunk * columns);
  widen(count, width, stride, h, wide_h);
  widen(items, width, stride, table, rows);
  transpose(items, width, table, width, 1.0f, transposed);
  const Softmax s{threads, count,  width, stride, items,     columns, wide_h, rows, transposed,
                  target,  upstream, logits, loss, wide_grad, grad_rows};
  if (upstream) std::memset(grad_rows, 0, items * stride * sizeof(float));
  for (long first = 0; first < count; first += chunk) {
    const long chunk_rows = std::min<long>(chunk, count - first);
    parallel(threads, (chunk_rows + kJobRows - 1) / kJobRows, [&](long job) {
      const long from = job * kJobRows;
      s.rows(first + from, std::min(kJobRows, chunk_rows - from), logits + from * columns);
    });
    if (!upstream) continue;
    parallel(threads, (items + kJobItems - 1) / kJobItems, [&](long job) {
      const long from = job * kJobItems;
      product(std::min<long>(kJobItems, items - from), stride, chunk_rows, columns_of(logits + from, columns),
              wide_h + first * stride, stride, grad_rows + from * stride, stride, kAdd);
    });
  }
  if (!upstream) return;
  narrow(count, width, stride, wide_grad, grad_h);
  narrow(items, width, stride, grad_rows, grad_table);
}
