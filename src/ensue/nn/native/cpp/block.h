// One transformer block over a tile: attention and a feed-forward layer, each with normalisation and residual.
//
//   pre       a = x + attention(norm1(x))                 y = a + feed_forward(norm2(a))
//   post      a = norm1(x + attention(x))                 y = norm2(a + feed_forward(a))
//   original  n = norm1(x), a = n + attention(n over x)   m = norm2(a), y = m + feed_forward(m)
//
// In `original`, queries come from n, keys and values from x. See `Block` of ensue.nn.block, the plain form.
#pragma once
#include "attention.h"
#include "plan.h"

namespace ensue {

// What the forward pass keeps for the gradient, for the events of a tile and one block.
struct Kept {
  float *x, *qkv, *mixed, *hidden;  // input; projections; attention before `out`; feed-forward layer after dropout
  float* inner;                     // with GELU, the feed-forward layer before the activation
  Normed attention_norm, feed_forward_norm;
  float* log_sum;

  static long floats(const Plan& p) {
    const Widths w(p);
    return (p.activation == kGelu ? 5 : 4) * w.stride + w.qkv + w.heads + 2 + p.heads;
  }
  Kept(const Plan& p, float* at, long events) {
    const Widths w(p);
    const auto take = [&](long columns) {
      float* start = at;
      at += events * columns;
      return start;
    };
    x = take(w.stride), qkv = take(w.qkv), mixed = take(w.heads), hidden = take(w.stride);
    attention_norm.value = take(w.stride), feed_forward_norm.value = take(w.stride);
    attention_norm.inverse = take(1), feed_forward_norm.inverse = take(1);
    log_sum = take(p.heads);
    inner = p.activation == kGelu ? take(w.stride) : nullptr;
  }
};

// A block: its settings, its packed weights and the batch.
struct Block {
  const Plan& plan;
  const Places& places;
  const float* packed;
  const int64_t* offsets;
  int number;

  const BlockPlaces& own() const { return places.blocks[number]; }
  Gain gain(const Layer& l) const { return {packed + l.gain, packed + l.bias}; }
  // Sites of dropout: 0 is the input's, then for each block its heads, the hidden and the output values.
  uint32_t site(int place) const { return 1 + number * (plan.heads + 2) + place; }

  // y [events, columns] = x W^T + bias for outputs first .. first + columns - 1 of the layer; y has `y_stride`.
  void linear(const Linear& l, long events, const float* x, float* y, long y_stride, long first, long columns) const {
    const long depth = l.in_run == l.in ? l.in : l.in_rows;
    product(events, columns, depth, rows_of(x, l.in_rows), packed + l.forward + first, l.out_rows, y + first, y_stride,
            with_bias(packed + l.bias + first));
  }
  void linear(const Linear& l, long events, const float* x, float* y) const {
    linear(l, events, x, y, l.out_rows, 0, l.out_rows);
  }

  // The gradient through outputs first .. first + columns - 1 of a linear layer: of its weights, added, and of its
  // input, dx, which starts from `start`. dy has `dy_stride`.
  void linear_backward(const Linear& l, long events, const float* x, const float* dy, float* dx, Start start,
                       float* gradients, long first, long columns) const {
    const long dy_stride = l.out_rows;
    float* bias = gradients + l.bias_gradient + first;
    for (long c = 0; c < columns; c += kLanes) {
      Vec total = load(bias + c);
      for (long i = 0; i < events; i++) total += load(dy + i * dy_stride + first + c);
      store(bias + c, total);
    }
    product(columns, l.in_rows, events, columns_of(dy + first, dy_stride), x, l.in_rows,
            gradients + l.gradient + first * l.in_rows, l.in_rows, kAdd);
    product(events, l.in_rows, columns, rows_of(dy + first, dy_stride), packed + l.backward + first * l.in_rows,
            l.in_rows, dx, l.in_rows, start);
  }
  void linear_backward(const Linear& l, long events, const float* x, const float* dy, float* dx, Start start,
                       float* gradients) const {
    linear_backward(l, events, x, dy, dx, start, gradients, 0, l.out_rows);
  }

  template <class Use>
  void each_head(const Tile& t, const Kept& k, Use use) const {
    const Widths& w = places.widths;
    for (long row = t.first_row; row < t.last_row; row++)
      for (int head = 0; head < plan.heads; head++) {
        const long at = offsets[row] - t.first_event;
        const float* q = k.qkv + at * w.qkv + head * w.head_stride;
        Head h{offsets[row + 1] - offsets[row],
               w.head,
               w.head_stride,
               plan.causal != 0,
               q,
               q + w.heads,
               q + 2 * w.heads,
               w.qkv,
               w.heads,
               k.log_sum + at * plan.heads + head,
               plan.heads,
               plan.dropout(),
               site(head),
               offsets[row]};
        use(h, at, head * w.head_stride);
      }
  }

  void forward(const Tile& t, const Kept& k, float* y, Arena& arena) const;
  void newest(const Tile& t, const float* x, float* y, Arena& arena) const;
  void feed_forward(const Tile& t, const Kept& k, float* sum, float* y, Arena& arena) const;
  void backward(const Tile& t, const Kept& k, float* grad, float* gradients, Arena& arena) const;
  float* feed_forward_backward(const Tile& t, const Kept& k, float* grad, float* gradients, Arena& arena) const;
};

ENSUE_INLINE void add(long count, const float* x, float* y) {
  for (long i = 0; i < count; i += kLanes) store(y + i, load(y + i) + load(x + i));
}

// The activation of k.hidden and the dropout after it, in place; with GELU, k.inner keeps what it was.
inline void activate(const Plan& p, uint32_t site, const Tile& t, long stride, const Kept& k) {
  const long size = t.events * stride;
  float* x = k.hidden;
  if (p.activation == kRelu)
    for (long i = 0; i < size; i += kLanes) store(x + i, larger(load(x + i), Vec{}));
  if (p.activation == kGelu) {
    std::memcpy(k.inner, x, size * sizeof(float));
    for (long i = 0; i < size; i += kLanes) store(x + i, load(x + i) * normal(load(x + i)).below);
  }
  drop(p.dropout(), site, t.first_event, t.events, stride, x);
}

// The gradient of `activate`, in place.
inline void activate_backward(const Plan& p, uint32_t site, const Tile& t, long stride, const Kept& k, float* grad) {
  const long size = t.events * stride;
  if (p.activation == kRelu) {
    // A value that was dropped is zero too.
    const float scale = p.dropout().scale;
    for (long i = 0; i < size; i += kLanes)
      store(grad + i, kept((Ints)(load(k.hidden + i) > 0), load(grad + i) * scale));
    return;
  }
  drop(p.dropout(), site, t.first_event, t.events, stride, grad);
  if (p.activation == kGelu)
    for (long i = 0; i < size; i += kLanes) {
      const Vec x = load(k.inner + i);
      const Normal n = normal(x);
      store(grad + i, load(grad + i) * (n.below + x * n.density));
    }
}

inline void Block::forward(const Tile& t, const Kept& k, float* y, Arena& arena) const {
  const Mark mark(arena);
  const Widths& w = places.widths;
  const long n = t.events, size = n * w.stride;
  const Gain g = gain(own().attention_norm);
  float *normed = arena.take(size), *sum = arena.take(size);
  if (plan.norm != kPost) normalise(n, w.width, w.stride, plan.epsilon, k.x, g, normed, k.attention_norm);
  if (plan.norm == kOriginal) {
    linear(own().qkv, n, normed, k.qkv, w.qkv, 0, w.heads);
    linear(own().qkv, n, k.x, k.qkv, w.qkv, w.heads, 2 * w.heads);
  } else {
    linear(own().qkv, n, plan.norm == kPre ? normed : k.x, k.qkv);
  }
  each_head(t, k, [&](const Head& h, long at, long column) { attend(h, k.mixed + at * w.heads + column, arena); });
  linear(own().out, n, k.mixed, sum);
  add(size, plan.norm == kOriginal ? normed : k.x, sum);
  if (plan.norm == kPost) normalise(n, w.width, w.stride, plan.epsilon, sum, g, sum, k.attention_norm);
  feed_forward(t, k, sum, y, arena);
}

// The block's results at the newest event of each row alone, y [rows, stride], from its inputs x at all events of the
// tile. Only the keys and values of the other events are computed. Without dropout, and nothing is kept.
inline void Block::newest(const Tile& t, const float* x, float* y, Arena& arena) const {
  const Mark mark(arena);
  const Widths& w = places.widths;
  const long n = t.events, rows = t.last_row - t.first_row, size = n * w.stride;
  const Gain g = gain(own().attention_norm);
  const Normed unused{arena.take(size), arena.take(n)};
  const Kept k(plan, arena.take(rows * Kept::floats(plan)), rows);
  float *in = arena.take(rows * w.stride), *qkv = arena.take(n * w.qkv), *q = k.qkv;
  const float* keys_in = x;
  if (plan.norm == kPre) {
    float* normed = arena.take(size);
    normalise(n, w.width, w.stride, plan.epsilon, x, g, normed, unused);
    keys_in = normed;
  }
  for (long r = 0; r < rows; r++) {
    const long last = offsets[t.first_row + r + 1] - 1 - t.first_event;
    std::memcpy(k.x + r * w.stride, x + last * w.stride, w.stride * sizeof(float));
    std::memcpy(in + r * w.stride, keys_in + last * w.stride, w.stride * sizeof(float));
  }
  if (plan.norm == kOriginal) normalise(rows, w.width, w.stride, plan.epsilon, in, g, in, unused);
  linear(own().qkv, n, keys_in, qkv, w.qkv, w.heads, 2 * w.heads);
  linear(own().qkv, rows, in, q, w.qkv, 0, w.heads);
  for (long r = 0; r < rows; r++)
    for (int head = 0; head < plan.heads; head++) {
      const long row = t.first_row + r, at = offsets[row] - t.first_event, column = head * w.head_stride;
      const float* key = qkv + at * w.qkv + w.heads + column;
      attend_newest({offsets[row + 1] - offsets[row], w.head, w.head_stride, true, q + r * w.qkv + column, key,
                     key + w.heads, w.qkv, w.heads, nullptr, 0, plan.dropout(), 0, 0},
                    k.mixed + r * w.heads + column, arena);
    }
  float* sum = arena.take(rows * w.stride);
  linear(own().out, rows, k.mixed, sum);
  add(rows * w.stride, plan.norm == kOriginal ? in : k.x, sum);
  if (plan.norm == kPost) normalise(rows, w.width, w.stride, plan.epsilon, sum, g, sum, unused);
  feed_forward({t.first_row, t.last_row, 0, rows}, k, sum, y, arena);
}

// From the result of the attention sublayer, which is overwritten, to that of the block.
inline void Block::feed_forward(const Tile& t, const Kept& k, float* sum, float* y, Arena& arena) const {
  const Mark mark(arena);
  const Widths& w = places.widths;
  const long n = t.events, size = n * w.stride;
  const Gain g = gain(own().feed_forward_norm);
  float* in = sum;
  if (plan.norm != kPost) {
    in = arena.take(size);
    normalise(n, w.width, w.stride, plan.epsilon, sum, g, in, k.feed_forward_norm);
  }
  linear(own().inner, n, in, k.hidden);
  activate(plan, site(plan.heads), t, w.stride, k);
  linear(own().outer, n, k.hidden, y);
  drop(plan.dropout(), site(plan.heads + 1), t.first_event, n, w.stride, y);
  add(size, plan.norm == kOriginal ? in : sum, y);
  if (plan.norm == kPost) normalise(n, w.width, w.stride, plan.epsilon, y, g, y, k.feed_forward_norm);
}

// `grad`, the gradient of the block's result, becomes that of its input.
inline void Block::backward(const Tile& t, const Kept& k, float* grad, float* gradients, Arena& arena) const {
  const Mark mark(arena);
  const Widths& w = places.widths;
  const long n = t.events, size = n * w.stride;
  const Layer& norm = own().attention_norm;
  const auto norm_backward = [&](const float* dy, const float* added, float* dx) {
    normalise_backward(n, w.width, w.stride, dy, gain(norm), k.attention_norm, added, dx, gradients + norm.gain_gradient,
                       gradients + norm.bias_gradient);
  };
  float* d = feed_forward_backward(t, k, grad, gradients, arena);
  if (plan.norm == kPost) norm_backward(d, nullptr, d);
  float *d_mixed = arena.take(n * w.heads), *d_qkv = arena.take(n * w.qkv);
  linear_backward(own().out, n, k.mixed, d, d_mixed, kZero, gradients);
  each_head(t, k, [&](const Head& h, long at, long column) {
    float* q = d_qkv + at * w.qkv + column;
    const long place = at * w.heads + column;
    attend_backward(h, k.mixed + place, d_mixed + place, q, q + w.heads, q + 2 * w.heads, arena);
  });
  if (plan.norm == kPost) {
    linear_backward(own().qkv, n, k.x, d_qkv, d, kAdd, gradients);
    std::memcpy(grad, d, size * sizeof(float));
    return;
  }
  float *normed = arena.take(size), *d_normed = arena.take(size);
  scaled(n, w.stride, k.attention_norm.value, gain(norm), normed);
  if (plan.norm == kPre) {
    linear_backward(own().qkv, n, normed, d_qkv, d_normed, kZero, gradients);
    norm_backward(d_normed, d, grad);
  } else {
    float* d_x = arena.take(size);
    linear_backward(own().qkv, n, normed, d_qkv, d, kAdd, gradients, 0, w.heads);
    linear_backward(own().qkv, n, k.x, d_qkv, d_x, kZero, gradients, w.heads, 2 * w.heads);
    norm_backward(d, d_x, grad);
  }
}

// The gradient of the attention sublayer's result, in memory of the arena.
inline float* Block::feed_forward_backward(const Tile& t, const Kept& k, float* grad, float* gradients,
                                           Arena& arena) const {
  const Widths& w = places.widths;
  const long n = t.events, size = n * w.stride;
  const Layer& norm = own().feed_forward_norm;
  const auto norm_backward = [&](const float* dy, const float* added, float* dx) {
    normalise_backward(n, w.width, w.stride, dy, gain(norm), k.feed_forward_norm, added, dx,
                       gradients + norm.gain_gradient, gradients + norm.bias_gradient);
  };
  float *in = arena.take(size), *d_out = arena.take(size), *d_hidden = arena.take(size), *d = arena.take(size);
  if (plan.norm == kPost) norm_backward(grad, nullptr, grad);
  std::memcpy(d_out, grad, size * sizeof(float));
  drop(plan.dropout(), site(plan.heads + 1), t.first_event, n, w.stride, d_out);
  linear_backward(own().outer, n, k.hidden, d_out, d_hidden, kZero, gradients);
  activate_backward(plan, site(plan.heads), t, w.stride, k, d_hidden);
  if (plan.norm == kPre) {
    scaled(n, w.stride, k.feed_forward_norm.value, gain(norm), in);
    linear_backward(own().inner, n, in, d_hidden, d, kZero, gradients);
    norm_backward(d, grad, d);
  } else {
    const Normed& before = plan.norm == kPost ? k.attention_norm : k.feed_forward_norm;
    scaled(n, w.stride, before.value, gain(plan.norm == kPost ? own().attention_norm : norm), in);
    std::memcpy(d, grad, size * sizeof(float));
    linear_backward(own().inner, n, in, d_hidden, d, kAdd, gradients);
    if (plan.norm == kOriginal) norm_backward(d, nullptr, d);
  }
  return d;
}

}  // namespace ensue
