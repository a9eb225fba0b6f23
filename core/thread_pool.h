#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/task_ref.h"

namespace tessera {

/// Worker threads that take numbered tasks from a common counter. The calling thread works too.
/// Idle workers spin briefly (the next layer's work comes within microseconds), then sleep.
class ThreadPool {
 public:
  /// `threads` in all, the caller's included; the others start with the first run that needs them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Calls task(i) for i in [0, count); rethrows the first exception after all threads have
  /// stopped. Called from within a task, it runs the inner tasks one after the other.
  void run(std::int64_t count, TaskRef task);

 private:
  void start();
  void worker();
  bool join_round(std::uint64_t& seen);
  void take_tasks();

  int threads_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  /// Number of the round, whether workers may still join it, and how many are in it. A worker that
  /// wakes up too late stays out, so nobody ever waits for a thread that has nothing to do.
  std::atomic<std::uint64_t> state_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{false};

  const TaskRef* task_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::exception_ptr error_;
};

}  // namespace tessera
