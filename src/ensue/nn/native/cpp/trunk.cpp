// The functions that Python calls for a trunk: weights, states of all events, their gradient, states of newest events.
//
// Rows are packed: row r has the events offsets[r] .. offsets[r + 1] - 1. The arguments have been checked in Python.
#include "block.h"
#include "threads.h"

using namespace ensue;

namespace {

// Gradients of parameters are summed in this many slots, tile i in slot i % kSlots, and the slots in their order. So
// the bits of a sum do not depend on the number of threads.
constexpr long kSlots = 8;

// What is kept of a tile: all its blocks, then the values of the final normalisation.
long kept_floats(const Plan& p) { return p.blocks * Kept::floats(p) + padded(p.width) + 1; }

struct KeptTile {
  std::vector<Kept> blocks;
  Normed norm;
  KeptTile(const Plan& p, float* at, long events) {
    for (int b = 0; b < p.blocks; b++, at += events * Kept::floats(p)) blocks.emplace_back(p, at, events);
    norm = {at, at + events * padded(p.width)};
  }
};

// Calls job(tile, arena) for all tiles, on the plan's threads.
template <class Job>
void each_tile(const Plan& p, const int64_t* offsets, int64_t rows, Job job) {
  const std::vector<Tile> tiles = tiles_of(offsets, rows);
  parallel(p.threads, static_cast<long>(tiles.size()), [&](long number) {
    Arena& arena = Arena::own();
    const Mark mark(arena);
    job(tiles[number], arena);
  });
}

}  // namespace

ENSUE_EXPORT int64_t ensue_packed_floats(const Plan* p) { return Places(*p).packed_size; }

ENSUE_EXPORT int64_t ensue_kept_floats(const Plan* p) { return kept_floats(*p); }

ENSUE_EXPORT void ensue_pack(const Plan* p, const float* parameters, float* packed) {
  pack(Places(*p), parameters, packed);
}

// States h [events, width] of all events, from their inputs x. `kept`, [events, kept floats], is read by the gradient;
// it may be null.
ENSUE_EXPORT void ensue_encode(const Plan* p, const float* packed, const int64_t* offsets, int64_t rows, const float* x,
                               float* h, float* kept) {
  const Places places(*p);
  const Widths& w = places.widths;
  each_tile(*p, offsets, rows, [&](const Tile& t, Arena& arena) {
    KeptTile k(*p, kept ? kept + t.first_event * kept_floats(*p) : arena.take(t.events * kept_floats(*p)), t.events);
    float* y = arena.take(t.events * w.stride);
    widen(t.events, w.width, w.stride, x + t.first_event * w.width, k.blocks[0].x);
    for (int b = 0; b < p->blocks; b++)
      Block{*p, places, packed, offsets, b}.forward(t, k.blocks[b], b + 1 < p->blocks ? k.blocks[b + 1].x : y, arena);
    const Gain g{packed + places.norm.gain, packed + places.norm.bias};
    normalise(t.events, w.width, w.stride, p->epsilon, y, g, y, k.norm);
    narrow(t.events, w.width, w.stride, y, h + t.first_event * w.width);
  });
}

// The gradients of `ensue_encode`: of the inputs, [events, width], and of the parameters, in their order.
ENSUE_EXPORT void ensue_encode_backward(const Plan* p, const float* packed, const int64_t* offsets, int64_t rows,
                                        const float* grad_h, float* kept, float* grad_x, float* grad_parameters) {
  const Places places(*p);
  const Widths& w = places.widths;
  const std::vector<Tile> tiles = tiles_of(offsets, rows);
  const long count = static_cast<long>(tiles.size()), slots = std::min(kSlots, count);
  Arena& shared = Arena::own();
  const Mark outer(shared);
  float* sums = shared.take(slots * places.gradient_size);
  parallel(p->threads, slots, [&](long slot) {
    Arena& arena = Arena::own();
    float* gradients = sums + slot * places.gradient_size;
    std::memset(gradients, 0, places.gradient_size * sizeof(float));
    for (long number = slot; number < count; number += slots) {
      const Mark mark(arena);
      const Tile& t = tiles[number];
      const KeptTile k(*p, kept + t.first_event * kept_floats(*p), t.events);
      float* grad = arena.take(t.events * w.stride);
      widen(t.events, w.width, w.stride, grad_h + t.first_event * w.width, grad);
      normalise_backward(t.events, w.width, w.stride, grad, {packed + places.norm.gain, packed + places.norm.bias},
                         k.norm, nullptr, grad, gradients + places.norm.gain_gradient,
                         gradients + places.norm.bias_gradient);
      for (int b = p->blocks - 1; b >= 0; b--)
        Block{*p, places, packed, offsets, b}.backward(t, k.blocks[b], grad, gradients, arena);
      narrow(t.events, w.width, w.stride, grad, grad_x + t.first_event * w.width);
    }
  });
  unpack(places, sums, slots, grad_parameters);
}

// States of the newest event of each row, [rows, width], without dropout.
ENSUE_EXPORT void ensue_newest(const Plan* p, const float* packed, const int64_t* offsets, int64_t rows, const float* x,
                               float* h) {
  const Places places(*p);
  const Widths& w = places.widths;
  each_tile(*p, offsets, rows, [&](const Tile& t, Arena& arena) {
    const long count = t.last_row - t.first_row;
    const Kept k(*p, arena.take(t.events * Kept::floats(*p)), t.events);
    float *y = arena.take(t.events * w.stride), *last = arena.take(count * w.stride);
    widen(t.events, w.width, w.stride, x + t.first_event * w.width, k.x);
    const int end = p->blocks - 1;
    for (int b = 0; b < end; b++) {
      Block{*p, places, packed, offsets, b}.forward(t, k, y, arena);
      std::memcpy(k.x, y, t.events * w.stride * sizeof(float));
    }
    Block{*p, places, packed, offsets, end}.newest(t, k.x, last, arena);
    normalise(count, w.width, w.stride, p->epsilon, last, {packed + places.norm.gain, packed + places.norm.bias}, last,
              {y, k.log_sum});
    narrow(count, w.width, w.stride, last, h + t.first_row * w.width);
  });
}

// The random bytes of dropout, [rows, columns], for tests: a value is kept where its byte is not below the threshold.
ENSUE_EXPORT void ensue_random_bytes(uint64_t seed, int64_t site, int64_t rows, int64_t columns, uint8_t* bytes) {
  const long wide = padded(columns);
  std::vector<uint8_t> row(wide);
  for (long i = 0; i < rows; i++) {
    std::fill(row.begin(), row.end(), 0);
    // A byte is the number of thresholds 1..255 that keep it.
    for (uint32_t below = 1; below < 256; below++)
      each_mask(key_of(seed, static_cast<uint32_t>(site), static_cast<uint32_t>(i)), wide, below, [&](long c, Ints keep) {
        for (int lane = 0; lane < kLanes; lane++) row[c + lane] += keep[lane] != 0;
      });
    std::memcpy(bytes + i * columns, row.data(), columns);
  }
}
