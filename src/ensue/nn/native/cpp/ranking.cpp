// Ranking of all items for many states: the standing of one item, or the best items, without storing the scores.
//
// Items are scored in blocks that stay in the cache. A score is summed in the order of the columns, also that of a
// single item, so equal vectors have equal scores.
#include <algorithm>
#include <array>
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

// Scores the catalogue for all states in jobs of up to kStates. begin(first, count) prepares states first ..
// first + count - 1 and returns the function that takes their blocks of scores. Returns whether all scores are finite.
template <class Begin>
bool score_all(long threads, const Catalogue& c, long states, const float* h, Begin begin) {
  const long jobs = (states + kStates - 1) / kStates;
  std::vector<char> finite(jobs);
  parallel(threads, jobs, [&](long job) {
    const long first = job * kStates, count = std::min<long>(kStates, states - first);
    finite[job] = score(c, h + first * c.width, count, Arena::own(), begin(first, count));
  });
  return std::all_of(finite.begin(), finite.end(), [](char each) { return each != 0; });
}

// For each state of a job, the place in `hidden` of the next item to leave out.
struct Hidden {
  const int64_t *items, *end;  // item numbers, and for each state the end of its part
  int64_t next[kStates];

  Hidden(const int64_t* hidden, const int64_t* offsets, long count) : items(hidden), end(offsets + 1) {
    std::copy(offsets, offsets + count, next);
  }
  // Calls visit(place) for the hidden items of state r in the block of `count` items from `first` on.
  template <class Visit>
  void in_block(long r, long first, long count, Visit visit) {
    for (int64_t& at = next[r]; at < end[r] && items[at] < first + count; at++) visit(items[at] - first);
  }
};

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
  return score_all(threads, c, states, h, [&](long first, long count) {
    std::array<float, kStates> own;
    for (long r = 0; r < count; r++) own[r] = score_of(c, h + (first + r) * width, target[first + r]);
    std::fill(better + first, better + first + count, 0);
    std::fill(equal + first, equal + first + count, 0);
    return [=, left_out = Hidden(hidden, offsets + first, count)](long item, long block, float* scores) mutable {
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
        const auto leave_out = [&](int64_t place) { more -= row[place] > own[r], ties -= row[place] == own[r]; };
        left_out.in_block(r, item, block, leave_out);
        const int64_t target_place = target[first + r] - item;
        if (target_place >= 0 && target_place < block) leave_out(target_place);
        better[first + r] += more, equal[first + r] += ties;
      }
    };
  });
}

// The k items with the highest scores for each state, best first, ties by the lower number: scores and items
// [states, k], with -infinity and item 1 where fewer items are left. `hidden` as of `ensue_standings`.
ENSUE_EXPORT int32_t ensue_best(int32_t threads, int64_t states, int64_t width, int64_t items, int64_t k,
                                const float* h, const float* columns, const int64_t* offsets, const int64_t* hidden,
                                float* best_scores, int64_t* best_items) {
  const Catalogue c{width, items, columns};
  return score_all(threads, c, states, h, [&](long first, long count) {
    std::fill(best_scores + first * k, best_scores + (first + count) * k, kLowest);
    std::fill(best_items + first * k, best_items + (first + count) * k, 1);
    return [=, left_out = Hidden(hidden, offsets + first, count)](long item, long block, float* scores) mutable {
      for (long r = 0; r < count; r++) {
        float* row = scores + r * kItems;
        left_out.in_block(r, item, block, [&](int64_t place) { row[place] = kLowest; });
        for (long j = block; j < padded(block); j++) row[j] = kLowest;
        put(row, item, block, k, best_scores + (first + r) * k, best_items + (first + r) * k);
      }
    };
  });
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
