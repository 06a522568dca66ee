// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve::server {
namespace {

using ::testing::ElementsAre;

TEST(WorkerPoolTest, RunsEveryJobBeforeItEnds) {
  std::atomic<int> ran = 0;
  {
    WorkerPool pool(3);
    for (int i = 0; i < 1000; ++i) {
      pool.Submit(WorkerPool::Lane::kPrepare, [&ran] { ++ran; });
    }
  }
  EXPECT_EQ(ran, 1000);
}

TEST(WorkerPoolTest, AnswersGoBeforePreparations) {
  std::promise<void> gate;
  std::vector<int> order;
  WorkerPool pool(1);
  pool.Submit(WorkerPool::Lane::kPrepare,
              [open = gate.get_future()]() mutable { open.get(); });
  for (const int i : {1, 2}) {
    pool.Submit(WorkerPool::Lane::kPrepare, [&, i] { order.push_back(i); });
  }
  for (const int i : {10, 20}) {
    pool.Submit(WorkerPool::Lane::kAnswer, [&, i] { order.push_back(i); });
  }
  gate.set_value();
  pool.Quiesce();
  EXPECT_THAT(order, ElementsAre(10, 20, 1, 2));
}

TEST(WorkerPoolTest, QuiesceWaitsForJobsThatJobsSubmit) {
  WorkerPool pool(2);
  std::atomic<int> ran = 0;
  pool.Submit(WorkerPool::Lane::kPrepare,
              [&] { pool.Submit(WorkerPool::Lane::kAnswer, [&] { ++ran; }); });
  pool.Quiesce();
  EXPECT_EQ(ran, 1);
}

TEST(WorkerPoolTest, TakesJobsFromManyThreads) {
  std::atomic<int> ran = 0;
  WorkerPool pool(2);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        pool.Submit(
            i % 2 == 0 ? WorkerPool::Lane::kAnswer : WorkerPool::Lane::kPrepare,
            [&ran, owned = std::make_unique<int>(i)] { ++ran; });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  pool.Quiesce();
  EXPECT_EQ(ran, 2000);
}

}  // namespace
}  // namespace piserve::server
