#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "core/context.h"
#include "core/layers.h"
#include "unit/core_numbers.h"

namespace tessera {
namespace {

using tessera::testing::random_tensor;

std::uintptr_t stack_begin, stack_end;
std::atomic<int> on_stack{0}, elsewhere{0};

void note_stack(int) {
  const auto at = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  ++(at >= stack_begin && at < stack_end ? on_stack : elsewhere);
}

/// Bounds of this thread's stack.
void find_stack() {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
  void* begin = nullptr;
  std::size_t size = 0;
  pthread_attr_getstack(&attributes, &begin, &size);
  pthread_attr_destroy(&attributes);
  stack_begin = reinterpret_cast<std::uintptr_t>(begin);
  stack_end = stack_begin + size;
}

// oneDNN before 3.12 keeps its stack pointer on the heap while it multiplies; a handler called then
// writes over what lies there.
TEST(Signals, FindTheStackInPlaceDuringProducts) {
  find_stack();
  struct sigaction action = {}, before = {};
  action.sa_handler = note_stack;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);

  std::atomic<bool> done{false};
  std::thread sender([&, target = pthread_self()] {
    while (!done) {
      pthread_kill(target, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  });
  Context ctx({.threads = 1});
  const Linear linear(random_tensor({384, 1536}, 1), random_tensor({384}, 2));
  const Tensor x = random_tensor({256, 1536}, 3);
  for (int i = 0; i < 100 || on_stack == 0; ++i) linear(ctx, x);
  done = true;
  sender.join();
  sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(elsewhere, 0) << "of " << elsewhere + on_stack << " signals";
}

}  // namespace
}  // namespace tessera
