// SPDX-License-Identifier: Apache-2.0
//
// What batching costs the host. Each benchmark checks its result before it is
// timed.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "batching/batcher.h"
#include "batching/dispatch_rule.h"
#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

void Check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "check failed: %s\n", what);
  std::exit(1);
}

TaskTraits Traits(int i) {
  TaskTraits traits;
  traits.arrival = At(0);
  traits.deadline = At(150 + i % 7);
  traits.client = i % 32;
  traits.bytes = 450000;
  return traits;
}

// Answers at once.
class ImmediateExecutor : public FakeExecutorTraits<Executor<int>> {
 public:
  explicit ImmediateExecutor(int* answered) : answered_(answered) {}
  void Launch(std::vector<int> wave, std::function<void()> done) override {
    *answered_ += static_cast<int>(wave.size());
    done();
  }

 private:
  int* answered_;
};

// Admission to answer, the batch thread's part included, in groups of
// `state.range(0)` requests that share a wave.
void BM_AdmitAndDispatch(benchmark::State& state) {
  const int group = static_cast<int>(state.range(0));
  FakeClock clock;
  int answered = 0;
  std::vector<std::unique_ptr<Executor<int>>> executors;
  executors.push_back(std::make_unique<ImmediateExecutor>(&answered));
  Batcher<int>::Options options;
  options.clock = &clock;
  options.drive = Drive::kManual;
  options.dropped = [](int, DropReason) { Check(false, "nothing is dropped"); };
  Batcher<int> batcher(std::move(options), std::move(executors));
  const auto round = [&] {
    for (int i = 0; i < group; ++i) {
      auto admitted = batcher.Admit(Traits(i));
      batcher.Enqueue(std::get<Ticket>(std::move(admitted)), i);
    }
    batcher.Poll();
  };
  round();
  Check(answered == group && batcher.idle(), "one round answers its group");
  for (auto _ : state) round();
  Check(answered == group * (1 + static_cast<int>(state.iterations())),
        "every round answers its group");
  state.SetItemsProcessed(state.iterations() * group);
}
BENCHMARK(BM_AdmitAndDispatch)->Arg(1)->Arg(8)->Arg(64);

// One decision over `state.range(0)` waiting tasks of 32 clients.
void BM_DispatchRule(benchmark::State& state) {
  std::vector<TaskTraits> tasks;
  for (int i = 0; i < state.range(0); ++i) tasks.push_back(Traits(i));
  std::vector<const TaskTraits*> waiting;
  for (const TaskTraits& task : tasks) waiting.push_back(&task);
  const FakeExecutorTraits<ExecutorTraits> executor;
  const ExecutorState idle{&executor, 0, At(0), {}};
  const DispatchInput input{
      At(0), Phase::kServing, waiting, {}, std::span(&idle, 1)};
  const Decision decision = Decide({}, input);
  Check(decision.launch && decision.launch->tasks.size() ==
                               std::min<std::size_t>(tasks.size(), 64),
        "a wave as large as the queue or the largest size");
  for (auto _ : state) benchmark::DoNotOptimize(Decide({}, input));
}
BENCHMARK(BM_DispatchRule)->Arg(1)->Arg(8)->Arg(64)->Arg(128);

// The decision to wait, which every arrival makes while the device is busy.
void BM_DispatchRuleBusy(benchmark::State& state) {
  std::vector<TaskTraits> tasks(128, Traits(0));
  std::vector<const TaskTraits*> waiting;
  for (const TaskTraits& task : tasks) waiting.push_back(&task);
  const FakeExecutorTraits<ExecutorTraits> executor;
  const ExecutorState busy{&executor, 1, At(30), Ms(30)};
  const DispatchInput input{
      At(0), Phase::kServing, waiting, {}, std::span(&busy, 1)};
  Check(Decide({}, input).again == At(28), "waits until the margin");
  for (auto _ : state) benchmark::DoNotOptimize(Decide({}, input));
}
BENCHMARK(BM_DispatchRuleBusy);

}  // namespace
}  // namespace piserve::batching

BENCHMARK_MAIN();
