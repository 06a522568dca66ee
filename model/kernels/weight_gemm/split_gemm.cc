// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/split_gemm.h"

#include <algorithm>
#include <span>

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

struct Form {
  int parts;  // of the inputs
  int width;  // tokens of a tile
  cudaError_t (*launch)(const SplitGemmArgs&, int parts, int processors,
                        cudaStream_t);
};

// In the order of the tokens that one wave holds. More parts want fewer steps
// of wider tiles, which read less for what they compute, and leave more to add.
constexpr Form kForms[] = {{4, 32, weight_gemm::LaunchSplit<32>},
                           {4, 64, weight_gemm::LaunchSplit<64>},
                           {4, 112, weight_gemm::LaunchSplit<112>},
                           {2, 64, weight_gemm::LaunchSplit<64>},
                           {4, 144, weight_gemm::LaunchSplit<144>},
                           {2, 112, weight_gemm::LaunchSplit<112>}};
constexpr Form kLongForms[] = {{2, 144, weight_gemm::LaunchSplit<144>},
                               {2, 208, weight_gemm::LaunchSplit<208>}};

constexpr int kTileRows = 128;
constexpr int kStep = 64;  // inputs that a tile takes at once
constexpr int kLeastInputs = 2048, kLongInputs = 8192;
// Tiles that one wave holds, and those below which library kernels win.
constexpr int kMostTiles = 132, kLeastTiles = 96, kLeastLongTiles = 110;

std::span<const Form> FormsFor(int in, int out) {
  if (in < kLeastInputs || out <= 0 || out % kTileRows != 0) return {};
  return in < kLongInputs ? std::span<const Form>(kForms) : kLongForms;
}

// Whole clusters, which take two columns.
int Columns(const Form& form, int out) {
  return kMostTiles / (out / kTileRows * form.parts) / 2 * 2;
}

const Form* FormFor(int tokens, int in, int out) {
  for (const Form& form : FormsFor(in, out)) {
    if (in % (form.parts * kStep) != 0) continue;
    const int columns = (tokens + form.width - 1) / form.width;
    if (columns > Columns(form, out)) continue;
    const int tiles = columns * (out / kTileRows) * form.parts;
    const int least = in < kLongInputs ? kLeastTiles : kLeastLongTiles;
    return tiles >= least ? &form : nullptr;
  }
  return nullptr;
}

}  // namespace

int SplitGemmParts(int tokens, int in, int out) {
  const Form* form = FormFor(tokens, in, out);
  return form == nullptr ? 0 : form->parts;
}

long SplitGemmFloats(int in, int out) {
  long floats = 0;
  for (const Form& form : FormsFor(in, out)) {
    const long tokens = long{form.width} * Columns(form, out);
    floats = std::max(floats, form.parts * tokens * out);
  }
  return floats;
}

cudaError_t LaunchSplitGemm(const SplitGemmArgs& args, cudaStream_t stream) {
  const Form* form = FormFor(args.tokens, args.in, args.out);
  if (form == nullptr) return cudaErrorInvalidValue;
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) {
    return e;
  }
  return form->launch(args, form->parts, processors, stream);
}

}  // namespace piserve::kernels
