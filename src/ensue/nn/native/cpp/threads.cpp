// The pool of threads: see threads.h.
#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace ensue {
namespace {

struct Job {
  const std::function<void(long)>& one;
  const long count;
  std::atomic<long> next{0};
  void work() {
    for (long i; (i = next.fetch_add(1)) < count;) one(i);
  }
};

class Pool {
 public:
  std::mutex turn;  // held by the call that uses the pool

  void run(int helpers, Job& job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (threads_ < helpers) std::thread(&Pool::serve, this, threads_++, round_).detach();
      job_ = &job, wanted_ = helpers, busy_ = threads_, round_++;
    }
    start_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  // The life of thread `number`: wait for the next round, and work if the round wants that many threads.
  void serve(int number, long seen) {
    for (;;) {
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        job = number < wanted_ ? job_ : nullptr;
      }
      if (job) job->work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  Job* job_ = nullptr;
  int threads_ = 0, wanted_ = 0, busy_ = 0;
  long round_ = 0;
};

// Never destroyed: its threads may outlive the end of the program's main function.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    current = new Pool;
    // A child has none of the threads, and its copies of the locks may be held: it gets a new pool.
    pthread_atfork(nullptr, nullptr, [] { current = new Pool; });
  });
  return *current;
}

}  // namespace

void parallel(int threads, long count, const std::function<void(long)>& job) {
  Job all{job, count};
  const int helpers = static_cast<int>(std::min<long>(threads, count)) - 1;
  if (helpers > 0) {
    Pool& shared = pool();
    std::unique_lock<std::mutex> lock(shared.turn, std::try_to_lock);
    if (lock.owns_lock()) return shared.run(helpers, all);
  }
  all.work();
}

}  // namespace ensue
