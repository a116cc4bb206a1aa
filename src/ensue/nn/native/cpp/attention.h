// Attention of one head within one row of events: out = dropout(softmax(q k^T / sqrt(d))) v, and its gradient.
//
// Queries are taken in strips of kStrip, and the weights of a strip stay in the cache. The gradient computes them again
// from the log of each query's sum, so nothing of the size of n x n is stored. With a causal mask, keys after a strip's
// newest query are never computed.
#pragma once
#include "arena.h"
#include "copies.h"
#include "dropout.h"
#include "product.h"

namespace ensue {

constexpr long kStrip = 48;
constexpr float kHidden = -1e30f;  // the score of a hidden key: its weight is less than the last bit of any sum

// One head of one row. q, k and v are parts of the same rows, `stride` apart; so are out and its gradient.
struct Head {
  long events, width, padded_width;  // n, d, and d rounded up
  bool causal;
  const float *q, *k, *v;
  long stride, out_stride;
  float* log_sum;  // [n], `log_stride` apart
  long log_stride;
  Dropout dropout;
  uint32_t site;
  long first_event;

  // The number of keys that query i sees.
  long seen(long i) const { return causal ? i + 1 : events; }
  Key key(long i) const { return key_of(dropout.seed, site, static_cast<uint32_t>(first_event + i)); }
};

// Products of `count` rows of `left` from row `first` on with every key that one of them sees: scores [count, n].
inline void strip_scores(const Head& h, long first, long count, const float* left, long stride, const float* right,
                         float* scores) {
  const long keys = padded(h.events);
  for (long r = 0; r < count; r += kRows) {
    const long rows = std::min<long>(kRows, count - r);
    few_rows(rows, padded(h.seen(first + r + rows - 1)), h.width, rows_of(left + (first + r) * stride, stride), right,
             keys, scores + r * keys, keys, kZero);
  }
}

inline void attend(const Head& h, float* out, Arena& arena) {
  const Mark mark(arena);
  const long n = h.events, keys = padded(n);
  float *k_transposed = arena.take(h.width * keys), *weights = arena.take(kStrip * keys);
  transpose(n, h.width, h.k, h.stride, 1.0f / std::sqrt(static_cast<float>(h.width)), k_transposed);
  for (long first = 0; first < n; first += kStrip) {
    const long count = std::min(kStrip, n - first), newest = h.seen(first + count - 1);
    strip_scores(h, first, count, h.q, h.stride, k_transposed, weights);
    for (long r = 0; r < count; r++) {
      const long i = first + r, seen = h.seen(i), end = padded(seen);
      float* w = weights + r * keys;
      for (long j = seen; j < end; j++) w[j] = kHidden;
      const auto [top, whole] = exponentials(end, w);
      h.log_sum[i * h.log_stride] = top + std::log(whole);
      if (h.dropout.below) {
        const float factor = h.dropout.scale / whole;
        each_mask(h.key(i), end, h.dropout.below,
                  [&](long j, Ints keep) { store(w + j, kept(keep, load(w + j) * factor)); });
      } else {
        const float factor = 1.0f / whole;
        for (long j = 0; j < end; j += kLanes) store(w + j, load(w + j) * factor);
      }
      for (long j = seen; j < newest; j++) w[j] = 0;
    }
    for (long r = 0; r < count; r += kRows) {
      const long rows = std::min<long>(kRows, count - r), seen = h.seen(first + r + rows - 1);
      few_rows(rows, h.padded_width, seen, rows_of(weights + r * keys, keys), h.v, h.stride,
               out + (first + r) * h.out_stride, h.out_stride, kZero);
    }
  }
}

// The gradients of q, k and v from that of the output. `grad_q`, `grad_k` and `grad_v` are as far apart as q, k and v.
inline void attend_backward(const Head& h, const float* out, const float* grad, float* grad_q, float* grad_k,
                            float* grad_v, Arena& arena) {
  const Mark mark(arena);
  const long n = h.events, keys = padded(n), last = (n - 1) / kStrip * kStrip;
  const float scale = 1.0f / std::sqrt(static_cast<float>(h.width));
  float *k_transposed = arena.take(h.width * keys), *v_transposed = arena.take(h.width * keys);
  float *weights = arena.take(kStrip * keys), *grad_scores = arena.take(kStrip * keys);
  transpose(n, h.width, h.k, h.stride, scale, k_transposed);
  transpose(n, h.width, h.v, h.stride, 1.0f, v_transposed);
  // The last strip comes first: only it sees every key, so its products start the sums over the queries.
  for (long first = last; first >= 0; first -= kStrip) {
    const long count = std::min(kStrip, n - first), newest = h.seen(first + count - 1);
    strip_scores(h, first, count, h.q, h.stride, k_transposed, weights);
    strip_scores(h, first, count, grad, h.out_stride, v_transposed, grad_scores);
    for (long r = 0; r < count; r++) {
      const long i = first + r, seen = h.seen(i), end = padded(seen);
      float *w = weights + r * keys, *g = grad_scores + r * keys;
      Vec total = {};
      for (long c = 0; c < h.padded_width; c += kLanes)
        total += load(grad + i * h.out_stride + c) * load(out + i * h.out_stride + c);
      const float dot = sum(total), log_sum = h.log_sum[i * h.log_stride];
      for (long j = seen; j < end; j++) w[j] = kHidden;
      if (h.dropout.below) {
        each_mask(h.key(i), end, h.dropout.below, [&](long j, Ints keep) {
          const Vec weight = exponential(load(w + j) - log_sum), factor = kept(keep, splat(h.dropout.scale));
          store(w + j, weight * factor);
          store(g + j, weight * (load(g + j) * factor - dot) * scale);
        });
      } else {
        for (long j = 0; j < end; j += kLanes) {
          const Vec weight = exponential(load(w + j) - log_sum);
          store(w + j, weight);
          store(g + j, weight * (load(g + j) - dot) * scale);
        }
      }
      for (long j = seen; j < padded(newest); j++) w[j] = g[j] = 0;
    }
    for (long r = 0; r < count; r += kRows) {
      const long rows = std::min<long>(kRows, count - r), seen = h.seen(first + r + rows - 1);
      few_rows(rows, h.padded_width, seen, rows_of(grad_scores + r * keys, keys), h.k, h.stride,
               grad_q + (first + r) * h.stride, h.stride, kZero);
    }
    const Start start = first == last ? kZero : kAdd;
    for (long j = 0; j < newest; j += kRows) {
      const long rows = std::min<long>(kRows, newest - j);
      const long from = h.causal ? std::max<long>(0, j - first) : 0;  // queries before see none of these keys
      const float* q = h.q + (first + from) * h.stride;
      const float* upstream = grad + (first + from) * h.out_stride;
      few_rows(rows, h.padded_width, count - from, columns_of(grad_scores + from * keys + j, keys), q, h.stride,
               grad_k + j * h.stride, h.stride, start);
      few_rows(rows, h.padded_width, count - from, columns_of(weights + from * keys + j, keys), upstream, h.out_stride,
               grad_v + j * h.stride, h.stride, start);
    }
  }
}

// Attention of one query, which sees all n events; no dropout. k and v are rows, h.stride apart.
inline void attend_newest(const Head& h, float* out, Arena& arena) {
  const Mark mark(arena);
  const long n = h.events, keys = padded(n);
  float* weights = arena.take(keys);
  const float scale = 1.0f / std::sqrt(static_cast<float>(h.width));
  for (long j = 0; j < n; j++) {
    Vec dot = {};
    for (long c = 0; c < h.padded_width; c += kLanes) dot += load(h.q + c) * load(h.k + j * h.stride + c);
    weights[j] = sum(dot) * scale;
  }
  for (long j = n; j < keys; j++) weights[j] = kHidden;
  const float inverse = 1.0f / exponentials(keys, weights).sum;
  for (long j = 0; j < keys; j += kLanes) store(weights + j, load(weights + j) * inverse);
  few_rows(1, h.padded_width, n, rows_of(weights, keys), h.v, h.stride, out, h.out_stride, kZero);
}

}  // namespace ensue
