// Runs the native library on many shapes and threads, to be compiled under sanitizers: make sanitize.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "plan.h"

using ensue::Plan;
extern "C" {
int64_t ensue_packed_floats(const Plan*);
int64_t ensue_kept_floats(const Plan*);
void ensue_pack(const Plan*, const float*, float*);
void ensue_encode(const Plan*, const float*, const int64_t*, int64_t, const float*, float*, float*);
void ensue_encode_backward(const Plan*, const float*, const int64_t*, int64_t, const float*, float*, float*, float*);
void ensue_newest(const Plan*, const float*, const int64_t*, int64_t, const float*, float*);
void ensue_candidates(int32_t, int64_t, int64_t, int64_t, const float*, const float*, float*);
void ensue_candidates_backward(int32_t, int64_t, int64_t, int64_t, const float*, const float*, const float*, float*,
                               float*);
void ensue_add_rows(int32_t, int64_t, int64_t, int64_t, const int64_t*, const float*, float*);
void ensue_cross_entropy(int32_t, int64_t, int64_t, int64_t, int64_t, const float*, const float*, const int64_t*,
                         const float*, float*, float*, float*);
int64_t ensue_catalogue_floats(int64_t, int64_t);
void ensue_pack_catalogue(int64_t, int64_t, const float*, float*);
int32_t ensue_standings(int32_t, int64_t, int64_t, int64_t, const float*, const float*, const int64_t*, const int64_t*,
                        const int64_t*, int64_t*, int64_t*);
int32_t ensue_best(int32_t, int64_t, int64_t, int64_t, int64_t, const float*, const float*, const int64_t*,
                   const int64_t*, float*, int64_t*);
void ensue_best_of_scores(int32_t, int64_t, int64_t, int64_t, const float*, float*, int64_t*);
}

namespace {

std::vector<float> randoms(size_t count) {
  static thread_local std::mt19937 generator(1);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// All functions on one batch; buffers have exactly the sizes that Python gives them.
std::vector<float> exercise(const Plan& plan, const std::vector<int64_t>& lengths) {
  std::vector<int64_t> offsets{0};
  for (int64_t length : lengths) offsets.push_back(offsets.back() + length);
  const int64_t events = offsets.back(), rows = static_cast<int64_t>(lengths.size()), width = plan.width;
  const size_t parameters = plan.blocks * (6 * width * width + 10 * width) + 2 * width;
  std::vector<float> packed(ensue_packed_floats(&plan)), kept(events * ensue_kept_floats(&plan));
  std::vector<float> x = randoms(events * width), h(events * width), newest(rows * width), grad_x(events * width);
  std::vector<float> gradients(parameters);
  ensue_pack(&plan, randoms(parameters).data(), packed.data());
  ensue_encode(&plan, packed.data(), offsets.data(), rows, x.data(), h.data(), kept.data());
  ensue_encode_backward(&plan, packed.data(), offsets.data(), rows, h.data(), kept.data(), grad_x.data(),
                        gradients.data());
  ensue_newest(&plan, packed.data(), offsets.data(), rows, x.data(), newest.data());
  return gradients;
}

// The functions on tables of `items` rows; buffers have exactly the sizes that Python gives them.
void exercise_tables(int64_t states, int64_t items, int64_t width) {
  const int32_t threads = 3;
  const int64_t k = std::min<int64_t>(items, 10), candidates = 5;
  const std::vector<float> h = randoms(states * width), table = randoms(items * width);
  const std::vector<float> own = randoms(states * candidates * width), grad = randoms(states * candidates);
  std::vector<float> logits(states * candidates), grad_h(states * width), grad_own(states * candidates * width);
  ensue_candidates(threads, states, candidates, width, h.data(), own.data(), logits.data());
  ensue_candidates_backward(threads, states, candidates, width, h.data(), own.data(), grad.data(), grad_h.data(),
                            grad_own.data());
  std::vector<int64_t> target, offsets{0}, hidden;
  for (int64_t r = 0; r < states; r++) {
    target.push_back((r * 7) % items);
    for (int64_t item = r % 3; item < items && r % 2; item += 100)
      if (item != target.back()) hidden.push_back(item);
    offsets.push_back(static_cast<int64_t>(hidden.size()));
  }
  std::vector<float> sums(items * width), loss(states), grad_table(items * width);
  ensue_add_rows(threads, items, width, states, target.data(), h.data(), sums.data());
  const std::vector<float> upstream(states, 0.5f);
  ensue_cross_entropy(threads, states, width, items, 40, h.data(), table.data(), target.data(), upstream.data(),
                      loss.data(), grad_h.data(), grad_table.data());
  ensue_cross_entropy(threads, states, width, items, 40, h.data(), table.data(), target.data(), nullptr, loss.data(),
                      nullptr, nullptr);
  std::vector<float> columns(ensue_catalogue_floats(width, items)), best(states * k), scores = randoms(states * items);
  std::vector<int64_t> better(states), equal(states), numbers(states * k);
  ensue_pack_catalogue(width, items, table.data(), columns.data());
  ensue_standings(threads, states, width, items, h.data(), columns.data(), target.data(), offsets.data(), hidden.data(),
                  better.data(), equal.data());
  ensue_best(threads, states, width, items, k, h.data(), columns.data(), offsets.data(), hidden.data(), best.data(),
             numbers.data());
  ensue_best_of_scores(threads, states, items, k, scores.data(), best.data(), numbers.data());
}

}  // namespace

int main() {
  for (int64_t states : {1, 23, 100})
    for (int64_t items : {1, 16, 511, 1030})
      for (int64_t width : {1, 8, 21}) exercise_tables(states, items, width);
  const std::vector<int64_t> lengths{1, 47, 48, 49, 192, 250, 3, 3, 3, 100, 1};
  for (int32_t norm : {0, 1, 2})
    for (int32_t width : {1, 8, 21, 50})
      for (int32_t causal : {0, 1})
        for (int32_t activation : {0, 1, 2})
          exercise({width, width == 21 ? 3 : 1, 2, norm, activation, causal, 3, 51, 1e-8f, 7}, lengths);
  const Plan plan{20, 2, 2, 0, 1, 1, 3, 51, 1e-8f, 7};
  // Two callers at once, then a fork: a child has threads of its own.
  std::thread other([&] { exercise(plan, lengths); });
  exercise(plan, lengths);
  other.join();
#if !defined(__SANITIZE_THREAD__)  // ThreadSanitizer does not follow forks of programs with threads
  const pid_t child = fork();
  exercise(plan, lengths);
  if (child == 0) _exit(0);
  int status = 1;
  if (waitpid(child, &status, 0) != child || status != 0) return 1;
#endif
  std::puts("exercised");
  return 0;
}
