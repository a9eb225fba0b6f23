#include "core/thread_pool.h"

namespace tessera {
namespace {

constexpr int kSpins = 20000;

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
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this] { worker(); });
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (threads_ == 1 || count <= 1 || running_.load(std::memory_order_relaxed)) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  if (workers_.empty()) start();
  task_ = &task;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  error_ = nullptr;
  busy_.store(threads_ - 1, std::memory_order_relaxed);
  running_ = true;
  {
    const std::lock_guard lock(mutex_);
    round_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  take_tasks();
  for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  running_ = false;
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::worker() {
  std::uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (round_.load(std::memory_order_acquire) == seen && !stop_ && ++spins < kSpins) relax();
    if (round_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || round_.load(std::memory_order_acquire) != seen; });
    }
    if (stop_) return;
    ++seen;
    take_tasks();
    busy_.fetch_sub(1, std::memory_order_release);
  }
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
