// What a trunk computes: its sizes, the places of its packed weights, and the tiles of a batch.
#pragma once
#include <vector>

#include "dropout.h"
#include "norm.h"
#include "product.h"

namespace ensue {

enum Norm : int32_t { kPre = 0, kPost = 1, kOriginal = 2 };
enum Activation : int32_t { kNone = 0, kRelu = 1, kGelu = 2 };

// The settings of a call, in the order of the Python class `Plan`.
struct Plan {
  int32_t width, heads, blocks, norm, activation, causal, threads, drop_below;
  float epsilon;
  uint64_t seed;

  Dropout dropout() const { return {seed, static_cast<uint32_t>(drop_below), 256.0f / (256 - drop_below)}; }
};

// Widths of rows in memory. A head takes `head_stride` columns, so that it starts at a whole vector.
struct Widths {
  explicit Widths(const Plan& p)
      : width(p.width),
        stride(padded(p.width)),
        head(p.width / p.heads),
        head_stride(padded(p.width / p.heads)),
        heads(p.heads * head_stride),
        qkv(3 * heads) {}
  long width, stride, head, head_stride, heads, qkv;
};

// One linear layer: the place of its weights in the packed buffer, where they stand twice, for the forward and the
// backward product, and the place of its gradient. Weights have torch's shape [out, in]; runs of `out_run` outputs are
// `out_stride` apart in memory, and so are the inputs.
struct Linear {
  long out, in;
  long out_run, out_stride, in_run, in_stride;
  long out_rows, in_rows;                // after spreading
  long forward, backward, bias;          // [in_rows, out_rows], [out_rows, in_rows], [out_rows]
  long gradient, bias_gradient;          // [out_rows, in_rows], [out_rows]
  long out_place(long o) const { return o / out_run * out_stride + o % out_run; }
  long in_place(long i) const { return i / in_run * in_stride + i % in_run; }
};

struct Layer {
  long gain, bias, gain_gradient, bias_gradient;
};

struct BlockPlaces {
  Linear qkv, out, inner, outer;
  Layer attention_norm, feed_forward_norm;
};

// The places of all weights. Parameters come from Python in one row of floats, block by block in the order of the
// members of `each`, every tensor in torch's shape; their gradients go back in the same order.
struct Places {
  explicit Places(const Plan& p) : widths(p) {
    const Widths& w = widths;
    for (int b = 0; b < p.blocks; b++) {
      BlockPlaces places;
      places.qkv = linear(3 * w.width, w.width, w.head, w.head_stride, w.width, w.stride);
      places.out = linear(w.width, w.width, w.width, w.stride, w.head, w.head_stride);
      places.attention_norm = layer();
      places.inner = linear(w.width, w.width, w.width, w.stride, w.width, w.stride);
      places.outer = linear(w.width, w.width, w.width, w.stride, w.width, w.stride);
      places.feed_forward_norm = layer();
      blocks.push_back(places);
    }
    norm = layer();
  }

  // Calls one(linear) and two(layer) in the order of the parameters.
  template <class One, class Two>
  void each(One one, Two two) const {
    for (const BlockPlaces& b : blocks) {
      one(b.qkv);
      one(b.out);
      two(b.attention_norm);
      one(b.inner);
      one(b.outer);
      two(b.feed_forward_norm);
    }
    two(norm);
  }

  Widths widths;
  std::vector<BlockPlaces> blocks;
  Layer norm;
  long packed_size = 0, gradient_size = 0;

 private:
  static long take(long& size, long count) {
    const long place = size;
    size += (count + 15) / 16 * 16;
    return place;
  }
  Linear linear(long out, long in, long out_run, long out_stride, long in_run, long in_stride) {
    Linear l{out, in, out_run, out_stride, in_run, in_stride, out / out_run * out_stride, in / in_run * in_stride,
             0,   0,  0,       0,          0};
    l.forward = take(packed_size, l.in_rows * l.out_rows);
    l.backward = take(packed_size, l.in_rows * l.out_rows);
    l.bias = take(packed_size, l.out_rows);
    l.gradient = take(gradient_size, l.in_rows * l.out_rows);
    l.bias_gradient = take(gradient_size, l.out_rows);
    return l;
  }
  Layer layer() {
    const long stride = widths.stride;
    return {take(packed_size, stride), take(packed_size, stride), take(gradient_size, stride),
            take(gradient_size, stride)};
  }
};

// Packed weights from parameters; `packed` holds zeros.
inline void pack(const Places& places, const float* parameters, float* packed) {
  const float* p = parameters;
  places.each(
      [&](const Linear& l) {
        for (long o = 0; o < l.out; o++)
          for (long i = 0; i < l.in; i++, p++) {
            packed[l.forward + l.in_place(i) * l.out_rows + l.out_place(o)] = *p;
            packed[l.backward + l.out_place(o) * l.in_rows + l.in_place(i)] = *p;
          }
        for (long o = 0; o < l.out; o++) packed[l.bias + l.out_place(o)] = *p++;
      },
      [&](const Layer& l) {
        const long width = places.widths.width;
        std::memcpy(packed + l.gain, p, width * sizeof(float));
        std::memcpy(packed + l.bias, p + width, width * sizeof(float));
        p += 2 * width;
      });
}

// The gradients of the parameters, from the sum of `slots` rows of gradients, added in their order.
inline void unpack(const Places& places, const float* slots, long count, float* gradients) {
  float* g = gradients;
  const auto total = [&](long place) {
    float sum = 0;
    for (long slot = 0; slot < count; slot++) sum += slots[slot * places.gradient_size + place];
    return sum;
  };
  places.each(
      [&](const Linear& l) {
        for (long o = 0; o < l.out; o++)
          for (long i = 0; i < l.in; i++) *g++ = total(l.gradient + l.out_place(o) * l.in_rows + l.in_place(i));
        for (long o = 0; o < l.out; o++) *g++ = total(l.bias_gradient + l.out_place(o));
      },
      [&](const Layer& l) {
        for (long c = 0; c < places.widths.width; c++) *g++ = total(l.gain_gradient + c);
        for (long c = 0; c < places.widths.width; c++) *g++ = total(l.bias_gradient + c);
      });
}

// Whole rows of a batch that are computed together: rows first_row .. last_row - 1, events first_event .. + events - 1.
struct Tile {
  long first_row, last_row, first_event, events;
};

constexpr long kTileEvents = 192;  // the values of a tile stay in the second-level cache

// The tiles of a batch whose row r has the events offsets[r] .. offsets[r + 1] - 1. A longer row is a tile of its own.
inline std::vector<Tile> tiles_of(const int64_t* offsets, long rows) {
  std::vector<Tile> tiles;
  for (long row = 0; row < rows; row++) {
    const long stop = offsets[row + 1];
    if (!tiles.empty() && stop - tiles.back().first_event <= kTileEvents) {
      tiles.back().last_row = row + 1;
      tiles.back().events = stop - tiles.back().first_event;
    } else {
      tiles.push_back({row, row + 1, static_cast<long>(offsets[row]), stop - static_cast<long>(offsets[row])});
    }
  }
  return tiles;
}

}  // namespace ensue
