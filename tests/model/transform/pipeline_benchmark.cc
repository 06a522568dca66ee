// SPDX-License-Identifier: Apache-2.0
// What a request costs on the host before and after the model.
//   build/release-bench/bin/pipeline_benchmark
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "tests/support/golden_policy.h"

namespace piserve::transform {
namespace {

// Observation `index` of a golden policy; aborts if it is not prepared as
// openpi did.
class Subject {
 public:
  Subject(const char* policy, int index)
      : golden_(policy),
        pipeline_(*golden_.MakePipeline()),
        owner_(golden_.observation(index)),
        observation_(owner_.view()),
        input_(*pipeline_->Prepare(observation_)),
        actions_(golden_.model_actions(index, "fp32")) {
    if (input_.tokens != golden_.tokens(index)) std::abort();
  }

  const Pipeline& pipeline() const { return *pipeline_; }
  const Observation& observation() const { return observation_; }
  const ModelInput& input() const { return input_; }
  const std::vector<float>& actions() const { return actions_; }

 private:
  const test::GoldenPolicy golden_;
  const std::unique_ptr<Pipeline> pipeline_;
  const test::GoldenObservation owner_;
  const Observation observation_;
  const ModelInput input_;
  const std::vector<float> actions_;
};

void BM_Validate(benchmark::State& state) {
  const Subject subject("pi0_aloha_towel", 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        subject.pipeline().Validate(subject.observation()));
  }
}
BENCHMARK(BM_Validate);

void Prepare(benchmark::State& state, const char* policy, int index) {
  const Subject subject(policy, index);
  for (auto _ : state) {
    benchmark::DoNotOptimize(subject.pipeline().Prepare(subject.observation()));
  }
}
BENCHMARK_CAPTURE(Prepare, aloha_3_of_224x224, "pi0_aloha_towel", 0);
BENCHMARK_CAPTURE(Prepare, aloha_3_of_640x480, "pi0_aloha_towel", 1);
BENCHMARK_CAPTURE(Prepare, droid_2_of_1280x720, "pi05_droid", 2);

void BM_Finish(benchmark::State& state) {
  const Subject subject("pi0_aloha_towel", 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        subject.pipeline().Finish(subject.actions(), subject.input()));
  }
}
BENCHMARK(BM_Finish);

}  // namespace
}  // namespace piserve::transform

BENCHMARK_MAIN();
