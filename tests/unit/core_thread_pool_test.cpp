#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/context.h"
#include "core/task_groups.h"

namespace tessera {
namespace {

/// How often each task in [0, count) was called.
std::vector<int> calls(ThreadPool& pool, std::int64_t count) {
  std::vector<std::atomic<int>> counters(static_cast<std::size_t>(count));
  pool.run(count, [&](std::int64_t i) { ++counters.at(static_cast<std::size_t>(i)); });
  return {counters.begin(), counters.end()};
}

class ThreadPoolTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolTest, CallsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  for (const std::int64_t count : {0, 1, 2, 3, 17, 1000})
    EXPECT_EQ(calls(pool, count), std::vector<int>(static_cast<std::size_t>(count), 1));
}

TEST_P(ThreadPoolTest, ManyRoundsSeeEachOthersResults) {
  ThreadPool pool(GetParam());
  std::vector<std::int64_t> values(7, 0);
  for (int round = 0; round < 3000; ++round)
    pool.run(7, [&](std::int64_t i) { values[static_cast<std::size_t>(i)] += i; });
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(values[i], 3000 * static_cast<std::int64_t>(i));
}

TEST_P(ThreadPoolTest, SpreadsTasksThatTakeTime) {
  ThreadPool pool(GetParam());
  std::mutex mutex;
  std::set<std::thread::id> ids;
  for (int round = 0; round < 5; ++round) {
    pool.run(40, [&](std::int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
  }
  EXPECT_LE(ids.size(), static_cast<std::size_t>(GetParam()));
  EXPECT_EQ(ids.size() > 1, GetParam() > 1);
}

TEST_P(ThreadPoolTest, RoundsOfManyLengthsDoNotMix) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 60; ++round) {
    const std::int64_t count = round % 23;
    std::vector<int> seen(static_cast<std::size_t>(count), -1);
    pool.run(count, [&, round](std::int64_t i) {
      if ((i + round) % 5 == 0) std::this_thread::yield();
      seen[static_cast<std::size_t>(i)] = round;
    });
    ASSERT_EQ(seen, std::vector<int>(static_cast<std::size_t>(count), round));
  }
}

TEST_P(ThreadPoolTest, RethrowsAnExceptionAndGoesOn) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 50; ++round) {
    try {
      pool.run(100, [&](std::int64_t i) {
        if (i == round) throw std::runtime_error("task " + std::to_string(i));
      });
      ADD_FAILURE() << "the exception of task " << round << " was lost";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(error.what(), "task " + std::to_string(round));
    }
    EXPECT_EQ(calls(pool, 17), std::vector<int>(17, 1));
  }
}

TEST_P(ThreadPoolTest, RethrowsOneOfManyExceptions) {
  ThreadPool pool(GetParam());
  EXPECT_THROW(pool.run(1000, [](std::int64_t) { throw std::runtime_error("all fail"); }),
               std::runtime_error);
  EXPECT_EQ(calls(pool, 5), std::vector<int>(5, 1));
}

TEST_P(ThreadPoolTest, RunsInnerTasksWithinATask) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> counters(10 * 13);
  pool.run(10, [&](std::int64_t i) {
    pool.run(13, [&](std::int64_t j) { ++counters[static_cast<std::size_t>(i * 13 + j)]; });
  });
  for (const auto& counter : counters) EXPECT_EQ(counter, 1);
}

TEST_P(ThreadPoolTest, PassesOnAnInnerException) {
  ThreadPool pool(GetParam());
  const auto inner = [](std::int64_t) { throw std::invalid_argument("inner"); };
  EXPECT_THROW(pool.run(10, [&](std::int64_t) { pool.run(3, inner); }), std::invalid_argument);
}

class TaskGroupsTest : public ThreadPoolTest {};
INSTANTIATE_TEST_SUITE_P(Threads, TaskGroupsTest, ::testing::Values(1, 2, 3, 8));

TEST_P(TaskGroupsTest, PrepareEachGroupOnceBeforeItsPieces) {
  Context ctx({.threads = GetParam(), .log = {}});
  for (const std::int64_t groups : {0, 1, 2, 5, 30}) {
    for (int round = 0; round < 40; ++round) {
      const auto count = static_cast<std::size_t>(groups);
      std::vector<int> prepared(count * 3, 0);  // not atomic: pieces must see it
      std::vector<std::atomic<int>> early(count), done(count * 7);
      TaskGroups(ctx, groups, 7)
          .run(
              3,
              [&](std::int64_t g, std::int64_t part) {
                ++prepared[static_cast<std::size_t>(g * 3 + part)];
              },
              [&](std::int64_t g, std::int64_t piece) {
                for (std::int64_t part = 0; part < 3; ++part)
                  if (prepared[static_cast<std::size_t>(g * 3 + part)] != 1)
                    ++early[static_cast<std::size_t>(g)];
                ++done[static_cast<std::size_t>(g * 7 + piece)];
              });
      for (const int p : prepared) EXPECT_EQ(p, 1);
      for (const auto& e : early) EXPECT_EQ(e, 0);
      for (const auto& d : done) EXPECT_EQ(d, 1);
    }
  }
}

TEST_P(TaskGroupsTest, RethrowExceptions) {
  Context ctx({.threads = GetParam(), .log = {}});
  const auto fails = [](std::int64_t g, std::int64_t) {
    if (g == 3) throw std::runtime_error("group 3");
  };
  for (int round = 0; round < 50; ++round) {
    const auto nothing = [](std::int64_t, std::int64_t) {};
    EXPECT_THROW(TaskGroups(ctx, 5, 4).run(1, fails, nothing), std::runtime_error);
    EXPECT_THROW(TaskGroups(ctx, 5, 4).run(1, nothing, fails), std::runtime_error);
  }
}

TEST(ThreadPoolStart, UnusedPoolsStartNoThreads) {
  ThreadPool pool(1000000);
  std::vector<std::thread::id> ids;
  pool.run(1, [&](std::int64_t) { ids.push_back(std::this_thread::get_id()); });
  EXPECT_EQ(ids, std::vector<std::thread::id>{std::this_thread::get_id()});
}

TEST(ThreadPoolStart, OneThreadIsTheCallers) {
  ThreadPool pool(1);
  std::set<std::thread::id> ids;
  pool.run(100, [&](std::int64_t) { ids.insert(std::this_thread::get_id()); });
  EXPECT_EQ(ids, std::set<std::thread::id>{std::this_thread::get_id()});
}

TEST(Context, KnowsItsThreads) {
  EXPECT_EQ(Context({.threads = 3, .log = {}}).threads(), 3);
  EXPECT_EQ(Context().threads(), physical_cores());
  EXPECT_GE(physical_cores(), 1);
}

TEST(Context, LogsToTheCallbackOnly) {
  std::string logged;
  const Context ctx({.threads = 1, .log = [&](LogLevel level, const std::string& message) {
                       logged += message + (level == LogLevel::warning ? "!" : "?");
                     }});
  ctx.log(LogLevel::warning, "careful");
  EXPECT_EQ(logged, "careful!");
  Context({.threads = 1, .log = {}}).log(LogLevel::info, "dropped");
}

}  // namespace
}  // namespace tessera
