// Dropout without stored masks: whether a value is kept is a function of (seed, site, row, column).
//
// A site is a place in the network, a row an event of the batch. The seed, site and row are hashed to a key (SplitMix64,
// Steele et al., OOPSLA 2014), the key and a lane to a word (a 32-bit finaliser after Wellons), and each of the word's
// four bytes decides one column. So the masks are the same in the gradient, for any number of threads, and for every
// instruction set.
#pragma once
#include "vector.h"

namespace ensue {

struct Dropout {
  uint64_t seed;
  uint32_t below;  // bytes below this value drop; 0 switches dropout off
  float scale;     // of the values that are kept, 256 / (256 - below)
};

struct Key {
  uint32_t a, b;
};

ENSUE_INLINE Key key_of(uint64_t seed, uint32_t site, uint32_t row) {
  uint64_t z = seed + 0x9e3779b97f4a7c15ull * ((static_cast<uint64_t>(site) << 32 | row) + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

constexpr uint32_t kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// The words of lanes first .. first + kLanes - 1 of a group of 64 columns.
ENSUE_INLINE Words words_of(Key key, uint32_t group, int first) {
  Words x = *reinterpret_cast<const Words*>(kLaneNumbers + first) + (group * 16u + key.a);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x ^= key.b;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

// Calls use(column, keep) for each vector of `columns` columns (a multiple of kLanes); `keep` is all ones where the
// value is kept. Column c is byte c % 64 / 16 of lane c % 16 of group c / 64.
template <class Use>
ENSUE_INLINE void each_mask(Key key, long columns, uint32_t below, Use use) {
  for (long group = 0; group < columns; group += 64)
    for (int first = 0; first < 16 && group + first < columns; first += kLanes) {
      const Words words = words_of(key, static_cast<uint32_t>(group / 64), first);
      for (int byte = 0; byte < 4 && group + 16 * byte + first < columns; byte++)
        use(group + 16 * byte + first, (Ints)(((words >> (8 * byte)) & 255u) >= below));
    }
}

// Drops values of rows [count, width], in place; `first_row` is the event of the first row.
inline void drop(const Dropout& d, uint32_t site, long first_row, long count, long width, float* x) {
  if (!d.below) return;
  for (long i = 0; i < count; i++) {
    float* row = x + i * width;
    each_mask(key_of(d.seed, site, static_cast<uint32_t>(first_row + i)), width, d.below,
              [&](long c, Ints keep) { store(row + c, kept(keep, load(row + c) * d.scale)); });
  }
}

}  // namespace ensue
