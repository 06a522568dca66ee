// SPDX-License-Identifier: Apache-2.0
#include "model/engine/gemm.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace piserve::engine {
namespace {

constexpr int kHeuristics = 16;

absl::Status Check(cublasStatus_t status, const GemmShape& shape,
                   const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt ", what, " of ",
                                          DebugString(shape), ": ",
                                          cublasLtGetStatusString(status)));
}

cudaDataType_t OutputType(const GemmShape& shape) {
  return shape.type == GemmType::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
}

cublasLtEpilogue_t EpilogueOf(const GemmShape& shape) {
  switch (shape.epilogue) {
    case Epilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::kGeluBias:
      return CUBLASLT_EPILOGUE_GELU_BIAS;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

}  // namespace

std::string DebugString(const GemmShape& shape) {
  return absl::StrCat("gemm m=", shape.m, " n=", shape.n, " k=", shape.k,
                      " epilogue=", static_cast<int>(shape.epilogue),
                      shape.output == Output::kAccumulate ? " accumulate" : "");
}

// cuBLASLt is column-major: it sees W [k, n] transposed times X [k, m] giving
// Y [n, m], so its bias runs along our output features.
struct Gemm::Descriptors {
  cublasLtMatmulDesc_t op = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;

  Descriptors() = default;
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() {
    if (y != nullptr) cublasLtMatrixLayoutDestroy(y);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
    if (w != nullptr) cublasLtMatrixLayoutDestroy(w);
    if (op != nullptr) cublasLtMatmulDescDestroy(op);
  }

  static absl::StatusOr<std::unique_ptr<Descriptors>> Create(
      const GemmShape& s) {
    auto d = std::make_unique<Descriptors>();
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = EpilogueOf(s);
    const cudaDataType_t bias_type = CUDA_R_16BF;
    for (cublasStatus_t status :
         {cublasLtMatmulDescCreate(&d->op, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          cublasLtMatmulDescSetAttribute(d->op, CUBLASLT_MATMUL_DESC_TRANSA,
                                         &transposed, sizeof(transposed)),
          cublasLtMatmulDescSetAttribute(d->op, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                         &epilogue, sizeof(epilogue)),
          s.epilogue == Epilogue::kNone
              ? CUBLAS_STATUS_SUCCESS
              : cublasLtMatmulDescSetAttribute(
                    d->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                    sizeof(bias_type)),
          cublasLtMatrixLayoutCreate(&d->w, CUDA_R_16BF, s.k, s.n, s.k),
          cublasLtMatrixLayoutCreate(&d->x, CUDA_R_16BF, s.k, s.m, s.k),
          cublasLtMatrixLayoutCreate(&d->y, OutputType(s), s.n, s.m, s.n)}) {
      if (absl::Status bad = Check(status, s, "layout"); !bad.ok()) return bad;
    }
    return d;
  }
};

absl::StatusOr<std::vector<Gemm::Algorithm>> Gemm::Candidates(
    cublasLtHandle_t handle, const GemmShape& shape,
    std::size_t workspace_bytes) {
  auto descriptors = Descriptors::Create(shape);
  if (!descriptors.ok()) return descriptors.status();
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
      sizeof(workspace_bytes));
  cublasLtMatmulHeuristicResult_t found[kHeuristics];
  int count = 0;
  const Descriptors& d = **descriptors;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, d.op, d.w, d.x, d.y, d.y, preference, kHeuristics, found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (absl::Status bad = Check(status, shape, "heuristic"); !bad.ok()) {
    return bad;
  }
  std::vector<Algorithm> algorithms;
  for (int i = 0; i < count; ++i) {
    if (found[i].state == CUBLAS_STATUS_SUCCESS) {
      algorithms.push_back(found[i].algo);
    }
  }
  if (algorithms.empty()) {
    return absl::InternalError(
        absl::StrCat("cuBLASLt has no algorithm for ", DebugString(shape)));
  }
  return algorithms;
}

Gemm::Gemm(cublasLtHandle_t handle, const GemmShape& shape,
           const Algorithm& algo, std::unique_ptr<Descriptors> descriptors)
    : handle_(handle),
      shape_(shape),
      algo_(algo),
      descriptors_(std::move(descriptors)) {}

Gemm::~Gemm() = default;

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create(cublasLtHandle_t handle,
                                                   const GemmShape& shape,
                                                   const Algorithm& algo) {
  auto descriptors = Descriptors::Create(shape);
  if (!descriptors.ok()) return descriptors.status();
  return std::unique_ptr<Gemm>(
      new Gemm(handle, shape, algo, *std::move(descriptors)));
}

absl::Status Gemm::Run(const GemmOperands& operands, void* workspace,
                       std::size_t workspace_bytes, cudaStream_t stream) const {
  const Descriptors& d = *descriptors_;
  if (shape_.epilogue != Epilogue::kNone) {
    const cublasStatus_t status =
        cublasLtMatmulDescSetAttribute(d.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                       &operands.bias, sizeof(operands.bias));
    if (absl::Status bad = Check(status, shape_, "bias"); !bad.ok()) return bad;
  }
  const float beta = shape_.output == Output::kAccumulate ? 1 : 0;
  return Check(
      cublasLtMatmul(handle_, d.op, &operands.alpha, operands.w, d.w,
                     operands.x, d.x, &beta, operands.y, d.y, operands.y, d.y,
                     &algo_, workspace, workspace_bytes, stream),
      shape_, "matmul");
}

}  // namespace piserve::engine
