#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory_resource>
#include <thread>
#include <vector>

#include "core/context.h"

namespace tessera {

/// Work in groups of as many pieces each, which may be done in any order once what all of them need
/// is prepared. A thread takes whole groups, so that what it prepared is still in its own caches;
/// one that finds no group left helps with the pieces of others. Fewer groups than threads are
/// prepared by all of them first, part by part, for some would wait.
class TaskGroups {
 public:
  TaskGroups(Context& ctx, std::int64_t groups, std::int64_t pieces)
      : ctx_(ctx), pieces_(pieces), groups_(static_cast<std::size_t>(groups), ctx.lists()) {}

  /// Calls prepare(group, part) for each of so many parts, then work(group, piece) for each piece;
  /// once. Threads begin with groups that lie apart, the same ones in each product of the same
  /// rows.
  template <class Prepare, class Work>
  void run(std::int64_t parts, const Prepare& prepare, const Work& work) {
    const std::int64_t count = std::ssize(groups_),
                       threads = std::min<std::int64_t>(ctx_.threads(), count * pieces_);
    const bool apart = count < ctx_.threads();
    if (apart) {
      ctx_.parallel_for(count * parts,
                        [&](std::int64_t task) { prepare(task / parts, task % parts); });
    }
    const auto prepare_all = [&](std::int64_t i) {
      for (std::int64_t part = 0; part < parts && !apart; ++part) prepare(i, part);
    };
    ctx_.parallel_for(threads, [&](std::int64_t thread) {
      const auto from_own_on = [&](const auto& take) {
        for (std::int64_t i = 0; i < count; ++i) take((thread * count / threads + i) % count);
      };
      from_own_on([&](std::int64_t i) {
        if (!groups_[static_cast<std::size_t>(i)].taken.exchange(true)) open(i, prepare_all, work);
      });
      from_own_on([&](std::int64_t i) { take_pieces(i, work); });
    });
  }

 private:
  enum class State { unprepared, ready, failed };
  struct alignas(64) Group {
    std::atomic<bool> taken{false};
    std::atomic<State> state{State::unprepared};
    std::atomic<std::int64_t> next{0};  // of its pieces
  };

  template <class Prepare, class Work>
  void open(std::int64_t i, const Prepare& prepare, const Work& work) {
    auto& state = groups_[static_cast<std::size_t>(i)].state;
    try {
      prepare(i);
    } catch (...) {
      state = State::failed;  // nobody waits for it any more
      throw;
    }
    state = State::ready;
    take_pieces(i, work);
  }

  template <class Work>
  void take_pieces(std::int64_t i, const Work& work) {
    Group& group = groups_[static_cast<std::size_t>(i)];
    while (group.state == State::unprepared) std::this_thread::yield();
    if (group.state == State::failed) return;
    for (std::int64_t piece = 0; (piece = group.next++) < pieces_;) work(i, piece);
  }

  Context& ctx_;
  std::int64_t pieces_;
  std::pmr::vector<Group> groups_;
};

}  // namespace tessera
