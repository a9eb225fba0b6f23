#pragma once
#include <cstdint>

namespace tessera {

/// A callable of a task's number, by reference: what it refers to must outlive the call it is given
/// to. Unlike std::function it never takes memory.
class TaskRef {
 public:
  template <class Task>
  TaskRef(const Task& task)
      : task_(&task),
        call_([](const void* t, std::int64_t i) { (*static_cast<const Task*>(t))(i); }) {}
  void operator()(std::int64_t i) const { call_(task_, i); }

 private:
  const void* task_;
  void (*call_)(const void*, std::int64_t);
};

}  // namespace tessera
