// Working memory that is kept from call to call, so that a step has no page faults.
//
// `take` gives memory until the `Mark` made before it goes out of scope. Blocks are never moved. The values taken are
// those left by earlier uses.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace ensue {

class Arena {
 public:
  float* take(long count) {
    const size_t size = (static_cast<size_t>(count) + 31) / 16 * 16;
    while (block_ < blocks_.size() && used_ + size > blocks_[block_].size) block_++, used_ = 0;
    if (block_ == blocks_.size()) add(size);
    float* start = blocks_[block_].start + used_;
    used_ += size;
    return start;
  }

  // The arena of this thread.
  static Arena& own() {
    static thread_local Arena arena;
    return arena;
  }

 private:
  friend class Mark;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kBlock = 0;  // every use has a block of its own, whose ends are watched
#else
  static constexpr size_t kBlock = size_t{1} << 18;  // floats: 1 MiB
#endif
  struct Block {
    std::unique_ptr<float[]> memory;
    float* start;  // aligned to a cache line
    size_t size;
  };

  void add(size_t size) {
    size = std::max(size, kBlock);
    std::unique_ptr<float[]> memory(new float[size + 16]);
    float* start = memory.get();
    while (reinterpret_cast<uintptr_t>(start) % 64) start++;
    blocks_.push_back({std::move(memory), start, size});
  }

  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0;
};

// Gives back, at the end of its scope, all that was taken since.
class Mark {
 public:
  explicit Mark(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
  ~Mark() { arena_.block_ = block_, arena_.used_ = used_; }
  Mark(const Mark&) = delete;

 private:
  Arena& arena_;
  size_t block_, used_;
};

}  // namespace ensue
