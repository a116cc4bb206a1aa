// Layer normalisation, y = gain * (x - mean) / sqrt(variance + epsilon) + bias, and its gradient.
#pragma once
#include "vector.h"

namespace ensue {

struct Gain {
  const float *gain, *bias;
};
// What the gradient needs of a normalisation: the normalised values and 1 / sqrt(variance + epsilon).
struct Normed {
  float *value, *inverse;
};

// y = gain * value + bias, for rows [count, stride].
inline void scaled(long count, long stride, const float* value, Gain g, float* y) {
  for (long i = 0; i < count; i++)
    for (long c = 0; c < stride; c += kLanes)
      store(y + i * stride + c, load(value + i * stride + c) * load(g.gain + c) + load(g.bias + c));
}

// Rows of `width` columns, stored with `stride`; the columns between are zero, and stay zero. y may be x.
inline void normalise(long count, long width, long stride, float epsilon, const float* x, Gain g, float* y, Normed n) {
  const float added = static_cast<float>(stride - width);
  for (long i = 0; i < count; i++) {
    const float* row = x + i * stride;
    Vec total = {};
    for (long c = 0; c < stride; c += kLanes) total += load(row + c);
    const float mean = sum(total) / width;
    Vec squares = {};
    for (long c = 0; c < stride; c += kLanes) {
      const Vec t = load(row + c) - mean;
      squares += t * t;
    }
    // Each added column has contributed mean^2.
    const float variance = std::max((sum(squares) - added * mean * mean) / width, 0.0f);
    const float inverse = 1.0f / std::sqrt(variance + epsilon);
    float* value = n.value + i * stride;
    for (long c = 0; c < stride; c += kLanes) store(value + c, (load(row + c) - mean) * inverse);
    for (long c = width; c < stride; c++) value[c] = 0;
    n.inverse[i] = inverse;
  }
  scaled(count, stride, n.value, g, y);
}

// The gradient: dx = inverse * (t - mean(t) - value * mean(t * value)) with t = gain * dy, plus `added` if there is
// one. The gradients of gain and bias are added to. dx may be dy or `added`.
inline void normalise_backward(long count, long width, long stride, const float* dy, Gain g, Normed n,
                               const float* added, float* dx, float* gain_gradient, float* bias_gradient) {
  for (long i = 0; i < count; i++) {
    const float *d = dy + i * stride, *value = n.value + i * stride;
    Vec total = {}, dot = {};
    for (long c = 0; c < stride; c += kLanes) {
      const Vec upstream = load(d + c), v = load(value + c), t = upstream * load(g.gain + c);
      total += t;
      dot += t * v;
      store(gain_gradient + c, load(gain_gradient + c) + upstream * v);
      store(bias_gradient + c, load(bias_gradient + c) + upstream);
    }
    const float mean = sum(total) / width, mean_dot = sum(dot) / width, inverse = n.inverse[i];
    float* out = dx + i * stride;
    for (long c = 0; c < stride; c += kLanes) {
      Vec v = inverse * (load(d + c) * load(g.gain + c) - mean - load(value + c) * mean_dot);
      if (added) v += load(added + i * stride + c);
      store(out + c, v);
    }
    for (long c = width; c < stride; c++) out[c] = 0;
  }
}

}  // namespace ensue
