// SPDX-License-Identifier: Apache-2.0
#include "model/engine/gemm_book.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "model/engine/cuda_status.h"

namespace piserve::engine {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::size_t kFlushBytes = std::size_t{128} << 20;  // twice the L2
constexpr int kTimings = 4;

at::Tensor DeviceBytes(std::size_t bytes) {
  return at::empty({static_cast<std::int64_t>(bytes)},
                   at::TensorOptions(at::kByte).device(at::kCUDA));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GemmBook>> GemmBook::Create(Choice choice) {
  auto book = absl::WrapUnique(new GemmBook(choice));
  if (cublasLtCreate(&book->handle_) != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError("cublasLtCreate failed");
  }
  for (cudaEvent_t* event : {&book->start_, &book->end_}) {
    if (absl::Status s = CudaStatus(cudaEventCreate(event), "event"); !s.ok()) {
      return s;
    }
  }
  book->workspace_ = DeviceBytes(kWorkspaceBytes);
  book->flush_ = DeviceBytes(kFlushBytes);
  return book;
}

GemmBook::~GemmBook() {
  gemms_.clear();
  if (start_ != nullptr) cudaEventDestroy(start_);
  if (end_ != nullptr) cudaEventDestroy(end_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

absl::Status GemmBook::Run(const GemmShape& shape, const GemmOperands& operands,
                           cudaStream_t stream) {
  auto found = gemms_.find(shape);
  if (found == gemms_.end()) {
    if (unknown_ == Unknown::kRefuse) {
      return absl::InternalError(
          absl::StrCat("no algorithm chosen for ", DebugString(shape)));
    }
    auto algorithm = Fastest(shape, operands, stream);
    if (!algorithm.ok()) return algorithm.status();
    if (absl::Status s = Add(shape, *algorithm); !s.ok()) return s;
    found = gemms_.find(shape);
  }
  return found->second->Run(operands, workspace_.data_ptr(), kWorkspaceBytes,
                            stream);
}

std::map<GemmShape, Gemm::Algorithm> GemmBook::Algorithms() const {
  std::map<GemmShape, Gemm::Algorithm> algorithms;
  for (const auto& [shape, gemm] : gemms_) {
    algorithms.emplace(shape, gemm->algorithm());
  }
  return algorithms;
}

absl::Status GemmBook::Add(const GemmShape& shape,
                           const Gemm::Algorithm& algorithm) {
  auto gemm = Gemm::Create(handle_, shape, algorithm);
  if (!gemm.ok()) return gemm.status();
  gemms_[shape] = *std::move(gemm);
  return absl::OkStatus();
}

absl::StatusOr<Gemm::Algorithm> GemmBook::Fastest(const GemmShape& shape,
                                                  const GemmOperands& operands,
                                                  cudaStream_t stream) {
  auto candidates = Gemm::Candidates(handle_, shape, kWorkspaceBytes);
  if (!candidates.ok()) return candidates.status();
  if (choice_ == Choice::kFirstGuess) return candidates->front();
  const Gemm::Algorithm* best = nullptr;
  float best_ms = std::numeric_limits<float>::infinity();
  for (const Gemm::Algorithm& candidate : *candidates) {
    auto gemm = Gemm::Create(handle_, shape, candidate);
    if (!gemm.ok()) return gemm.status();
    const auto ms = Time(**gemm, operands, stream);
    if (!ms.ok()) return ms.status();
    if (*ms < best_ms) {
      best_ms = *ms;
      best = &candidate;
    }
  }
  if (best == nullptr) {
    return absl::InternalError(
        absl::StrCat("no algorithm runs ", DebugString(shape)));
  }
  return *best;
}

absl::StatusOr<float> GemmBook::Time(const Gemm& gemm,
                                     const GemmOperands& operands,
                                     cudaStream_t stream) {
  float best = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kTimings; ++i) {
    cudaMemsetAsync(flush_.data_ptr(), i, kFlushBytes, stream);
    cudaEventRecord(start_, stream);
    // What is proposed may still refuse to run.
    if (!gemm.Run(operands, workspace_.data_ptr(), kWorkspaceBytes, stream)
             .ok()) {
      return std::numeric_limits<float>::infinity();
    }
    cudaEventRecord(end_, stream);
    if (absl::Status s =
            CudaStatus(cudaEventSynchronize(end_), "timing a GEMM");
        !s.ok()) {
      return s;
    }
    float ms = 0;
    cudaEventElapsedTime(&ms, start_, end_);
    best = std::min(best, ms);
  }
  return best;
}

}  // namespace piserve::engine
