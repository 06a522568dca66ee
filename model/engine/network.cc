// SPDX-License-Identifier: Apache-2.0
#include "model/engine/network.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "model/engine/cuda_status.h"
#include "model/engine/graph_edges.h"
#include "model/engine/memory_need.h"
#include "model/kernels/processors.h"
#include "model/kernels/wave.h"

namespace piserve::engine {
namespace {

// The most rows that any layout computes a prefix for.
Capacity CapacityOf(const GraphSizes& sizes) {
  Capacity capacity;
  for (const WaveLayout& layout : AllLayouts(sizes)) {
    capacity.rows =
        std::max({capacity.rows, layout.rows, layout.prefix_rows()});
    capacity.micro_rows = std::max(capacity.micro_rows, layout.prefix.rows);
  }
  return capacity;
}

std::string GigaBytes(double bytes) {
  return absl::StrCat(std::round(bytes / 1e7) / 100, " GB");
}

// What torch takes in blocks of its own size, graphs, and kernels that are
// loaded when they first run.
constexpr double kSpareBytes = 0.5e9;

// The most rows whose buffers fit into `bytes`; 0: none.
int MostRows(const GraphSizes& sizes, const MemoryNeed& need, double bytes) {
  int most = 0;
  for (std::size_t i = 1; i <= sizes.batch_sizes.size(); ++i) {
    GraphSizes fewer = sizes;
    fewer.batch_sizes.resize(i);
    if (need.Bytes(CapacityOf(fewer)) + kSpareBytes > bytes) break;
    most = fewer.batch_sizes.back();
  }
  return most;
}

// Buffers, or what is taken before them or `beside` them, did not fit: says
// what was asked, what there is and what would fit.
absl::Status OutOfMemory(const Variant& variant, const EngineWeights& weights,
                         const GraphSizes& sizes, RopeTable rope,
                         double beside) {
  c10::cuda::CUDACachingAllocator::emptyCache();
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  const auto need = MemoryNeed::Measure(variant, weights, rope);
  const int most = need.ok() ? MostRows(sizes, *need, free - beside) : 0;
  const std::string asked =
      need.ok()
          ? absl::StrCat(" take ",
                         GigaBytes(need->Bytes(CapacityOf(sizes)) + beside))
          : " do not fit";
  return absl::FailedPreconditionError(absl::StrCat(
      "batch_sizes: got ", sizes.batch_sizes.back(),
      ", which beside the weights", asked, "; ", GigaBytes(free), " of ",
      GigaBytes(total), " are left; want ",
      most > 0 ? absl::StrCat("at most ", most)
               : absl::StrCat("more memory: not even ",
                              sizes.batch_sizes.front(), " fits")));
}

// Ends a capture that failed: until then its thread may not take memory.
void Abandon(at::cuda::CUDAGraph& graph) {
  try {
    graph.capture_end();
  } catch (const std::exception&) {  // it is not valid
  }
}

template <typename F>
absl::Status Guarded(const char* what, F f) {
  try {
    return f();
  } catch (const c10::OutOfMemoryError& e) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, ": does not fit into the device's memory: ",
                     e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat(what, ": ", e.what()));
  }
}

}  // namespace

Network::Network(const Variant& variant, Options options)
    : variant_(variant),
      options_(std::move(options)),
      sizes_{options_.batch_sizes, PromptSizes(variant), options_.micro_rows},
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)),
      pool_(at::cuda::graph_pool_handle()) {}

absl::StatusOr<std::unique_ptr<Network>> Network::Create(
    const checkpoint::Weights& weights, Options options) {
  const c10::InferenceMode inference;
  auto network =
      absl::WrapUnique(new Network(weights.variant(), std::move(options)));
  const c10::cuda::CUDAStreamGuard guard(network->stream_);
  const Optimisations& optimisations = network->options_.optimisations;
  const double before = TensorBytes();
  auto loaded = LoadWeights(
      weights, network->options_.step_counts,
      optimisations.fused_geglu ? GateUp::kPacked : GateUp::kGateFirst);
  if (!loaded.ok()) return loaded.status();
  network->weights_ = *std::move(loaded);
  // Only what has been folded into weights wants it.
  at::cuda::clearCublasWorkspaces();
  network->loaded_bytes_ = TensorBytes() - before;
  if (absl::Status s = network->TakeMemory(); !s.ok()) return s;
  if (absl::Status s = network->Synchronize(); !s.ok()) return s;
  return network;
}

double Network::weight_bytes() const {
  return loaded_bytes_ +
         (persistent_ != nullptr ? persistent_->packed_bytes() : 0.0);
}

std::vector<CapturedGraph> Network::Graphs() const {
  std::vector<CapturedGraph> graphs;
  const auto add = [&](const Graph& graph, const char* stage, int rows,
                       const char* steps) {
    if (graph != nullptr) graphs.push_back({stage, rows, steps});
  };
  for (const auto& [prefix, graph] : vision_) {
    add(graph, "vision", prefix.rows, "none");
  }
  for (const auto& [prefix, graph] : prefill_) {
    add(graph, "prefill", prefix.rows, "none");
  }
  for (const auto& [step, graph] : steps_) {
    const auto& [rows, kind] = step;
    add(graph, "denoise", rows, kind == StepKind::kFirst ? "first" : "later");
  }
  for (const auto& [rows, graph] : all_steps_) {
    add(graph, "denoise", rows, "all");
  }
  return graphs;
}

absl::Status Network::Synchronize() const {
  return CudaStatus(cudaStreamSynchronize(stream_.stream()), "the device");
}

WaveLayout Network::LayoutOf(const WaveShape& shape) const {
  if (options_.optimisations.compaction) return LayOut(sizes_, shape);
  WaveShape masked = shape;
  masked.cameras = Variant::kCameras;
  masked.prompt_tokens = variant_.max_token_len;
  return LayOut(sizes_, masked);
}

StepKind Network::KindOf(int step) const {
  return step > 0 && options_.optimisations.state_once ? StepKind::kLater
                                                       : StepKind::kFirst;
}

int Network::FirstStep(int steps) const {
  const auto& counts = options_.step_counts;
  const auto found = std::find(counts.begin(), counts.end(), steps);
  return weights_.steps.first[found - counts.begin()];
}

absl::Status Network::CaptureGraph(Graph& graph, const Enqueuer& enqueue) {
  if (graph != nullptr) return absl::OkStatus();
  const c10::InferenceMode inference;
  const c10::cuda::CUDAStreamGuard guard(stream_);
  const bool overlaps = options_.optimisations.dependent_launch;
  return Guarded("capture", [&]() -> absl::Status {
    auto captured =
        std::make_unique<at::cuda::CUDAGraph>(/*keep_graph=*/!overlaps);
    Launcher launcher(*gemms_, stream_.stream());
    captured->capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      enqueue(launcher);
    } catch (...) {
      Abandon(*captured);
      throw;
    }
    captured->capture_end();
    if (!launcher.ok()) return launcher.status();
    if (!overlaps) {
      absl::Status s = WaitForWholeKernels(captured->raw_cuda_graph());
      if (!s.ok()) return s;
      captured->instantiate();
    }
    graph = std::move(captured);
    return absl::OkStatus();
  });
}

absl::Status Network::Capture(const WaveLayout& layout) {
  gemms_->set_unknown(GemmBook::Unknown::kRefuse);
  const PrefixShape& prefix = layout.prefix;
  absl::Status status = CaptureGraph(vision_[prefix], [&](Launcher& l) {
    EnqueueVision(context(), prefix, l);
  });
  if (!status.ok()) return status;
  status = CaptureGraph(prefill_[prefix], [&](Launcher& l) {
    EnqueuePrefill(context(), prefix, l);
  });
  if (status.ok() && DenoisingOf(layout.rows) == Denoising::kPersistent) {
    return CaptureGraph(all_steps_[layout.rows], [&](Launcher& l) {
      persistent_->Enqueue(layout.rows, l);
    });
  }
  const auto& counts = options_.step_counts;
  const int most = *std::max_element(counts.begin(), counts.end());
  for (int step = 0; step < std::min(most, 2) && status.ok(); ++step) {
    const StepKind kind = KindOf(step);
    status = CaptureGraph(steps_[{layout.rows, kind}], [&](Launcher& l) {
      EnqueueStep(context(), layout.rows, kind, l);
    });
  }
  return status;
}

absl::Status Network::Execute(Graph* graph, Execution execution,
                              const Enqueuer& enqueue) {
  if (execution == Execution::kGraph) {
    if (*graph == nullptr) return absl::InternalError("graph not captured");
    return CudaStatus(
        cudaGraphLaunch((*graph)->raw_cuda_graph_exec(), stream_.stream()),
        "launching a graph");
  }
  return Guarded("running a stage", [&] {
    Launcher launcher(*gemms_, stream_.stream());
    enqueue(launcher);
    return launcher.status();
  });
}

// Of a wave that one kernel denoises; 0: none does.
absl::StatusOr<int> Network::MostPersistentRows() const {
  if (!options_.optimisations.persistent_denoising) return 0;
  int processors = 0;
  if (absl::Status s = CudaStatus(kernels::Processors(&processors),
                                  "counting multiprocessors");
      !s.ok()) {
    return s;
  }
  int rows = 0;
  for (const int size : sizes_.batch_sizes) {
    if (PersistentDenoise::Supports(variant_, size, processors)) rows = size;
  }
  return rows;
}

// All that is left once weights are there.
absl::Status Network::TakeMemory() {
  const absl::StatusOr<int> rows = MostPersistentRows();
  if (!rows.ok()) return rows.status();
  try {
    auto gemms = GemmBook::Create(options_.optimisations.timed_gemms
                                      ? GemmBook::Choice::kFastest
                                      : GemmBook::Choice::kFirstGuess);
    if (!gemms.ok()) return gemms.status();
    gemms_ = *std::move(gemms);
    buffers_ = std::make_unique<Buffers>(variant_, weights_, CapacityOf(sizes_),
                                         options_.rope);
    if (*rows == 0) return absl::OkStatus();
    Launcher launcher(*gemms_, stream_.stream());
    auto made = PersistentDenoise::Create(variant_, weights_, *rows, *buffers_,
                                          launcher);
    if (!made.ok()) return made.status();
    persistent_ = *std::move(made);
    return absl::OkStatus();
  } catch (const c10::OutOfMemoryError&) {
    buffers_.reset();
    return OutOfMemory(
        variant_, weights_, sizes_, options_.rope,
        *rows > 0 ? PersistentDenoise::NeededBytes(weights_, *rows) : 0);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("taking memory: ", e.what()));
  }
}

bool Network::HasPersistent(int rows) const {
  return persistent_ != nullptr && rows <= persistent_->most_rows();
}

void Network::Choose(int rows, Denoising denoising) {
  if (denoising == Denoising::kStepwise) {
    stepwise_.insert(rows);
  } else {
    stepwise_.erase(rows);
  }
}

Network::Denoising Network::DenoisingOf(int rows) const {
  return HasPersistent(rows) && !stepwise_.contains(rows)
             ? Denoising::kPersistent
             : Denoising::kStepwise;
}

absl::Status Network::Vision(const PrefixShape& prefix, Execution execution) {
  return Execute(&vision_[prefix], execution,
                 [&](Launcher& l) { EnqueueVision(context(), prefix, l); });
}

absl::Status Network::Prefill(const PrefixShape& prefix, Execution execution) {
  return Execute(&prefill_[prefix], execution,
                 [&](Launcher& l) { EnqueuePrefill(context(), prefix, l); });
}

absl::Status Network::Denoise(int rows, int steps, Execution execution) {
  if (DenoisingOf(rows) == Denoising::kPersistent) {
    return Execute(&all_steps_[rows], execution,
                   [&](Launcher& l) { persistent_->Enqueue(rows, l); });
  }
  absl::Status status;
  for (int i = 0; i < steps && status.ok(); ++i) {
    const StepKind kind = KindOf(i);
    status = Execute(&steps_[{rows, kind}], execution, [&](Launcher& l) {
      EnqueueStep(context(), rows, kind, l);
    });
  }
  return status;
}

absl::Status Network::Load(const HostWave& wave, const WaveShape& shape,
                           const WaveLayout& layout) {
  const Buffers& b = *buffers_;
  const int image = variant_.vision.image;
  return CudaStatus(
      kernels::LaunchLoadWave(
          {.pixels = wave.pixels,
           .camera_mask = wave.camera_mask,
           .tokens = wave.tokens,
           .token_count = wave.token_counts,
           .state = wave.state,
           .noise = wave.noise,
           .to = b.wave(),
           .row_base = Data<int>(b.next_row),
           .step = Data<int>(b.step),
           .call = Data<kernels::ExpertCall>(b.call),
           .first_step = FirstStep(shape.steps),
           .steps = shape.steps,
           .rows = shape.rows,
           .padded_rows = std::max(layout.prefix_rows(), layout.rows),
           .cameras = Variant::kCameras,
           .image_bytes = image * image * 3,
           .image_tokens = variant_.vision.tokens(),
           .max_tokens = variant_.max_token_len,
           .action_dim = variant_.action_dim,
           .action_elements = variant_.action_horizon * variant_.action_dim},
          stream_.stream()),
      "taking a wave over");
}

absl::Status Network::Enqueue(const HostWave& wave, const WaveShape& shape,
                              const WaveLayout& layout, Execution execution,
                              const Mark& mark) {
  const c10::InferenceMode inference;
  const c10::cuda::CUDAStreamGuard guard(stream_);
  if (execution == Execution::kEager) {
    gemms_->set_unknown(GemmBook::Unknown::kTime);
  }
  const PrefixShape& prefix = layout.prefix;
  mark(Stage::kBegin);
  absl::Status status = Load(wave, shape, layout);
  mark(Stage::kLoad);
  for (int i = 0; i < layout.micro_waves && status.ok(); ++i) {
    status = Vision(prefix, execution);
    mark(Stage::kVision);
    if (!status.ok()) break;
    status = Prefill(prefix, execution);
    mark(Stage::kPrefill);
  }
  if (status.ok()) status = Denoise(layout.rows, shape.steps, execution);
  mark(Stage::kDenoise);
  if (!status.ok()) return status;
  const std::size_t bytes = sizeof(float) * shape.rows *
                            variant_.action_horizon * variant_.action_dim;
  status =
      CudaStatus(cudaMemcpyAsync(wave.actions, buffers_->x.data_ptr(), bytes,
                                 cudaMemcpyDeviceToHost, stream_.stream()),
                 "copying actions");
  mark(Stage::kEnd);
  return status;
}

// Every stage reads what loading a wave sets: the first row, the step, the
// noise.
absl::Status Network::EnqueueAlone(Stage stage, const HostWave& wave,
                                   const WaveShape& shape, const Mark& mark) {
  const c10::InferenceMode inference;
  const c10::cuda::CUDAStreamGuard guard(stream_);
  const WaveLayout layout = LayoutOf(shape);
  mark(Stage::kBegin);
  absl::Status status = Load(wave, shape, layout);
  mark(Stage::kLoad);
  const int times = stage == Stage::kDenoise ? 1 : layout.micro_waves;
  for (int i = 0; i < times && status.ok(); ++i) {
    status = stage == Stage::kVision ? Vision(layout.prefix, execution())
             : stage == Stage::kPrefill
                 ? Prefill(layout.prefix, execution())
                 : Denoise(layout.rows, shape.steps, execution());
  }
  mark(stage);
  return status;
}

}  // namespace piserve::engine
