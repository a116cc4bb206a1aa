// A pool of threads of the library's own: no second OpenMP beside torch's, and none is needed on macOS.
#pragma once
#include <functional>

namespace ensue {

// Calls job(0) .. job(count - 1), in any order, on at most `threads` threads, this one included, and waits for them.
// If another call is using the pool, all is done on this thread. A forked process starts with an empty pool.
void parallel(int threads, long count, const std::function<void(long)>& job);

}  // namespace ensue
