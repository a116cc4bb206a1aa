// Ranking of all items for many states: the standing of one item, or the best items, without storing the scores.
//
// Items are scored in blocks that stay in the cache. A score is summed in the order of the columns, also that of a
// single item, so equal vectors have equal scores.
#include <limits>
#include <vector>

#include "arena.h"
#include "copies.h"
#include "product.h"
#include "threads.h"

using namespace ensue;

namespace {

constexpr long kStates = 24, kItems = 512;

struct Catalogue {
  long width, items;
  const float* columns;  // [width, padded(items)]
};

// Calls block(first, count, scores) for the blocks of items, in ascending order; `scores` has rows of kItems floats.
// Returns whether all scores are finite.
template <class Block>
bool score(const Catalogue& c, const float* h, long states, Arena& arena, Block block) {
  const Mark mark(arena);
  float* scores = arena.take(kStates * kItems);
  const long columns = padded(c.items);
  Vec odd = {};
  for (long first = 0; first < c.items; first += kItems) {
    const long count = std::min(kItems, c.items - first), wide = padded(count);
    product(states, wide, c.width, rows_of(h, c.width), c.columns + first, columns, scores, kItems, kZero);
    for (long r = 0; r < states; r++)
      for (long j = 0; j < wide; j += kLanes) odd += load(scores + r * kItems + j) * 0.0f;  // NaN for NaN and infinity
    block(first, count, scores);
  }
  return sum(odd) == 0.0f;
}

// Puts the scores of items first .. first + count - 1 (counted from 0) among the best k so far, which are descending. Items
// come in ascending order, so one that ties with an earlier one stays behind it. Vectors of scores are read whole.
void put(const float* scores, long first, long count, long k, float* top, int64_t* numbers) {
  for (long j = 0; j < count; j += kLanes) {
    if (!(largest(load(scores + j)) > top[k - 1])) continue;
    for (long i = j; i < std::min(count, j + kLanes); i++) {
      if (!(scores[i] > top[k - 1])) continue;
      long place = k - 1;
      for (; place > 0 && scores[i] > top[place - 1]; place--)
        top[place] = top[place - 1], numbers[place] = numbers[place - 1];
      top[place] = scores[i], numbers[place] = first + i + 1;
    }
  }
}

constexpr float kLowest = -std::numeric_limits<float>::infinity();

float score_of(const Catalogue& c, const float* h, int64_t item) {
  float total = 0;
  for (long k = 0; k < c.width; k++) total = std::fma(h[k], c.columns[k * padded(c.items) + item], total);
  return total;
}

}  // namespace

// The catalogue as ranking reads it, [width, padded items], from item vectors [items, width].
ENSUE_EXPORT int64_t ensue_catalogue_floats(int64_t width, int64_t items) { return width * padded(items); }
ENSUE_EXPORT void ensue_pack_catalogue(int64_t width, int64_t items, const float* vectors, float* columns) {
  transpose(items, width, vectors, width, 1.0f, columns);
}

// For each state, the number of items scored above its target and of other items scored the same. Items that do not
// count are hidden[offsets[r]] .. hidden[offsets[r + 1] - 1] for state r: ascending, distinct, without the target.
// Returns whether all scores are finite.
ENSUE_EXPORT int32_t ensue_standings(int32_t threads, int64_t states, int64_t width, int64_t items, const float* h,
                                     const float* columns, const int64_t* target, const int64_t* offsets,
                                     const int64_t* hidden, int64_t* better, int64_t* equal) {
  const Catalogue c{width, items, columns};
  const long jobs = (states + kStates - 1) / kStates;
  std::vector<char> finite(jobs);
  parallel(threads, jobs, [&](long job) {
    const long first = job * kStates, count = std::min<long>(kStates, states - first);
    float own[kStates];
    int64_t next[kStates];
    for (long r = 0; r < count; r++) {
      own[r] = score_of(c, h + (first + r) * width, target[first + r]);
      next[r] = offsets[first + r];
      better[first + r] = 0, equal[first + r] = 0;
    }
    finite[job] = score(c, h + first * width, count, Arena::own(), [&](long item, long block, float* scores) {
      for (long r = 0; r < count; r++) {
        float* row = scores + r * kItems;
        Ints above = {}, same = {};
        long j = 0;
        for (; j + kLanes <= block; j += kLanes) {
          above -= (Ints)(load(row + j) > own[r]);
          same -= (Ints)(load(row + j) == own[r]);
        }
        int64_t more = 0, ties = 0;
        for (int lane = 0; lane < kLanes; lane++) more += above[lane], ties += same[lane];
        for (; j < block; j++) more += row[j] > own[r], ties += row[j] == own[r];
        const auto leave_out = [&](float score) { more -= score > own[r], ties -= score == own[r]; };
        for (int64_t& at = next[r]; at < offsets[first + r + 1] && hidden[at] < item + block; at++)
          leave_out(row[hidden[at] - item]);
        const int64_t target_place = target[first + r] - item;
        if (target_place >= 0 && target_place < block) leave_out(row[target_place]);
        better[first + r] += more, equal[first + r] += ties;
      }
    });
  });
  return std::all_of(finite.begin(), finite.end(), [](char each) { return each != 0; });
}

// The k items with the highest scores for each state, best first, ties by the lower number: scores and items
// [states, k], with -infinity and item 1 where fewer items are left. `hidden` as of `ensue_standings`.
ENSUE_EXPORT int32_t ensue_best(int32_t threads, int64_t states, int64_t width, int64_t items, int64_t k,
                                const float* h, const float* columns, const int64_t* offsets, const int64_t* hidden,
                                float* best_scores, int64_t* best_items) {
  const Catalogue c{width, items, columns};
  const long jobs = (states + kStates - 1) / kStates;
  std::vector<char> finite(jobs);
  parallel(threads, jobs, [&](long job) {
    const long first = job * kStates, count = std::min<long>(kStates, states - first);
    int64_t next[kStates];
    for (long r = 0; r < count; r++) next[r] = offsets[first + r];
    std::fill(best_scores + first * k, best_scores + (first + count) * k, kLowest);
    std::fill(best_items + first * k, best_items + (first + count) * k, 1);
    finite[job] = score(c, h + first * width, count, Arena::own(), [&](long item, long block, float* scores) {
      for (long r = 0; r < count; r++) {
        float *row = scores + r * kItems, *top = best_scores + (first + r) * k;
        int64_t* numbers = best_items + (first + r) * k;
        for (int64_t& at = next[r]; at < offsets[first + r + 1] && hidden[at] < item + block; at++)
          row[hidden[at] - item] = kLowest;
        for (long j = block; j < padded(block); j++) row[j] = kLowest;
        put(row, item, block, k, top, numbers);
      }
    });
  });
  return std::all_of(finite.begin(), finite.end(), [](char each) { return each != 0; });
}

// The same from scores [states, items], in which hidden items are -infinity.
ENSUE_EXPORT void ensue_best_of_scores(int32_t threads, int64_t states, int64_t items, int64_t k, const float* scores,
                                       float* best_scores, int64_t* best_items) {
  parallel(threads, states, [&](long r) {
    float* top = best_scores + r * k;
    std::fill(top, top + k, kLowest);
    std::fill(best_items + r * k, best_items + (r + 1) * k, 1);
    const long whole = items / kLanes * kLanes;
    put(scores + r * items, 0, whole, k, top, best_items + r * k);
    float rest[kLanes];
    std::fill(rest, rest + kLanes, kLowest);
    std::copy(scores + r * items + whole, scores + (r + 1) * items, rest);
    put(rest, whole, items - whole, k, top, best_items + r * k);
  });
}
