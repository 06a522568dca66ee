// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/weights.h"
#include "model/engine/buffers.h"
#include "model/engine/gemm_book.h"
#include "model/engine/optimisations.h"
#include "model/engine/persistent_denoise.h"
#include "model/engine/stages.h"
#include "model/engine/wave_layout.h"
#include "model/engine/weights.h"
#include "model/policy.h"

namespace piserve::engine {

// A wave's inputs and outputs, in host memory that the device can reach
// (pinned). Rows one after another, each as SlotRow says.
struct HostWave {
  const std::uint8_t* pixels = nullptr;
  const std::uint8_t* camera_mask = nullptr;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* token_counts = nullptr;
  const float* state = nullptr;
  const float* noise = nullptr;
  float* actions = nullptr;
};

// Stage of a wave, as marks on the stream tell it.
enum class Stage { kBegin, kLoad, kVision, kPrefill, kDenoise, kEnd };

// Called where a stage of a wave has just been enqueued.
using Mark = std::function<void(Stage)>;

// Pi0 or Pi0.5 on one device: weights, memory, and a CUDA graph for everything
// that a wave may need.
//
// Not thread-safe: one thread enqueues. Work runs in the order in which it was
// enqueued, on one stream.
class Network {
 public:
  struct Options {
    RopeTable rope = RopeTable::kBf16;
    std::vector<int> batch_sizes;  // ascending
    std::vector<int> step_counts;
    int micro_rows = kMicroRows;  // rows of a prefix graph at most
    Optimisations optimisations = {};
  };

  // Loads weights and takes memory. FAILED_PRECONDITION if something does not
  // fit, with what was asked and what there is.
  static absl::StatusOr<std::unique_ptr<Network>> Create(
      const checkpoint::Weights& weights, Options options);

  // How a wave's stages run: as captured graphs, or kernel by kernel, which
  // also times GEMMs that are met for the first time.
  enum class Execution { kGraph, kEager };

  // How the options want waves to be run.
  Execution execution() const {
    return options_.optimisations.graphs ? Execution::kGraph
                                         : Execution::kEager;
  }

  // How a wave's steps run: all in one persistent kernel, for a few rows, or
  // step by step. Whoever measures which is faster chooses; until then it is
  // the kernel where there is one.
  enum class Denoising { kPersistent, kStepwise };
  bool HasPersistent(int rows) const;
  void Choose(int rows, Denoising denoising);
  Denoising DenoisingOf(int rows) const;

  // Captures the graphs that a layout needs and that are not there yet. Its
  // GEMMs must be known: from a plan, or from an eager run.
  absl::Status Capture(const WaveLayout& layout);

  // Enqueues a wave and the copy of its actions to the host. `wave` stays
  // untouched until the stream has passed.
  absl::Status Enqueue(const HostWave& wave, const WaveShape& shape,
                       Execution execution, const Mark& mark) {
    return Enqueue(wave, shape, LayoutOf(shape), execution, mark);
  }
  // In a layout of fewer micro-waves the last rows keep the prefix of an
  // earlier wave: for trying graphs out.
  absl::Status Enqueue(const HostWave& wave, const WaveShape& shape,
                       const WaveLayout& layout, Execution execution,
                       const Mark& mark);

  // Enqueues one stage alone (kVision, kPrefill or kDenoise; all micro-waves
  // of it) on what an earlier wave of the same shape left: for timing it.
  absl::Status EnqueueAlone(Stage stage, const HostWave& wave,
                            const WaveShape& shape, const Mark& mark);

  WaveLayout LayoutOf(const WaveShape& shape) const;
  const Variant& variant() const { return variant_; }
  const GraphSizes& sizes() const { return sizes_; }
  const Options& options() const { return options_; }
  const c10::cuda::CUDAStream& stream() const { return stream_; }
  GemmBook& gemms() { return *gemms_; }
  Buffers& buffers() { return *buffers_; }
  const EngineWeights& weights() const { return weights_; }

  // On the device, what the persistent kernel has packed included.
  double weight_bytes() const;

  // Those captured so far.
  std::vector<CapturedGraph> Graphs() const;

  // Waits for everything that was enqueued.
  absl::Status Synchronize() const;

 private:
  using Graph = std::unique_ptr<at::cuda::CUDAGraph>;
  using Enqueuer = std::function<void(Launcher&)>;

  Network(const Variant& variant, Options options);

  absl::Status Load(const HostWave& wave, const WaveShape& shape,
                    const WaveLayout& layout);
  absl::Status Execute(Graph* graph, Execution execution,
                       const Enqueuer& enqueue);
  absl::Status CaptureGraph(Graph& graph, const Enqueuer& enqueue);
  absl::Status TakeMemory();
  absl::StatusOr<int> MostPersistentRows() const;
  absl::Status Vision(const PrefixShape& prefix, Execution execution);
  absl::Status Prefill(const PrefixShape& prefix, Execution execution);
  absl::Status Denoise(int rows, int steps, Execution execution);
  StepKind KindOf(int step) const;
  StageContext context() {
    return {variant_, weights_, *buffers_, options_.optimisations};
  }
  int FirstStep(int steps) const;

  const Variant variant_;
  const Options options_;
  const GraphSizes sizes_;
  c10::cuda::CUDAStream stream_;
  EngineWeights weights_;
  double loaded_bytes_ = 0;  // weights_
  std::unique_ptr<GemmBook> gemms_;
  std::unique_ptr<Buffers> buffers_;
  at::cuda::MempoolId_t pool_;
  std::map<PrefixShape, Graph> vision_;
  std::map<PrefixShape, Graph> prefill_;
  std::map<std::pair<int, StepKind>, Graph> steps_;
  std::unique_ptr<PersistentDenoise> persistent_;  // or none
  std::set<int> stepwise_;                         // rows, though it has them
  std::map<int, Graph> all_steps_;                 // by rows
};

}  // namespace piserve::engine
