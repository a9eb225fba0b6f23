#include "core/thread_pool.h"

#include <system_error>
#include <utility>

namespace tessera {
namespace {

constexpr int kSpins = 20000;

// Parts of state_.
constexpr std::uint64_t kInside = (std::uint64_t{1} << 20) - 1;  // workers in the round
constexpr std::uint64_t kOpen = std::uint64_t{1} << 20;
constexpr int kRoundShift = 21;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::start() {
  try {
    for (int i = 1; i < threads_; ++i) workers_.emplace_back([this] { worker(); });
  } catch (const std::system_error&) {  // no more threads to be had: go on with fewer
    threads_ = 1 + static_cast<int>(workers_.size());
  }
}

void ThreadPool::run(std::int64_t count, TaskRef task) {
  if (threads_ == 1 || count <= 1 || running_.load(std::memory_order_relaxed)) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  if (workers_.empty()) start();
  running_ = true;
  task_ = &task;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  error_ = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t round = (state_.load(std::memory_order_relaxed) >> kRoundShift) + 1;
    state_.store(round << kRoundShift | kOpen, std::memory_order_release);
  }
  wake_.notify_all();
  take_tasks();
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (state_.load(std::memory_order_acquire) & kInside) != 0; ++spins) {
    if (spins < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  running_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::worker() {
  std::uint64_t seen = 0;
  const auto new_round = [&] {
    return state_.load(std::memory_order_acquire) >> kRoundShift != seen;
  };
  for (;;) {
    int spins = 0;
    while (!new_round() && !stop_ && ++spins < kSpins) relax();
    if (!new_round()) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || new_round(); });
    }
    if (stop_) return;
    if (!join_round(seen)) continue;
    take_tasks();
    state_.fetch_sub(1, std::memory_order_release);
  }
}

/// Joins the current round unless it is closed; `seen` becomes its number.
bool ThreadPool::join_round(std::uint64_t& seen) {
  std::uint64_t state = state_.load(std::memory_order_acquire);
  do {
    seen = state >> kRoundShift;
    if ((state & kOpen) == 0) return false;
  } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
  return true;
}

void ThreadPool::take_tasks() {
  for (;;) {
    const std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count_) return;
    try {
      (*task_)(i);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(count_, std::memory_order_relaxed);
    }
  }
}

}  // namespace tessera
