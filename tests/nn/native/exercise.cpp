// Runs the native library on many shapes and threads, to be compiled under sanitizers: make sanitize.
#include <sys/wait.h>
#include <unistd.h>

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

}  // namespace

int main() {
  const std::vector<int64_t> lengths{1, 47, 48, 49, 192, 250, 3, 3, 3, 100, 1};
  for (int32_t norm : {0, 1, 2})
    for (int32_t width : {1, 8, 21, 50})
      for (int32_t causal : {0, 1})
        exercise({width, width == 21 ? 3 : 1, 2, norm, 1, causal, 3, 51, 1e-8f, 7}, lengths);
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
