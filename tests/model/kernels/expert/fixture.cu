// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "tests/model/kernels/expert/fixture.h"

namespace piserve::kernels {
namespace {

constexpr int kHeadDim = 256;

__device__ unsigned Hash(unsigned a, unsigned b) {
  unsigned h = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u) * 0x85EBCA77u;
  h ^= h >> 15, h *= 0x2C1B3C6Du;
  h ^= h >> 12, h *= 0x297A2D39u;
  return h ^ (h >> 15);
}

__device__ float UnitNormal(unsigned seed, unsigned i) {
  const float u = (Hash(seed, 2 * i) + 1.0f) * 0x1p-32f;
  const float v = Hash(seed, 2 * i + 1) * 0x1p-32f;
  return sqrtf(-2 * logf(fminf(u, 1.0f))) * cospif(2 * v);
}

__device__ void Assign(float* out, float v) { *out = v; }
__device__ void Assign(Bf16* out, float v) { *out = __float2bfloat16_rn(v); }

template <typename T>
__global__ void FillKernel(T* out, long count, float deviation, unsigned seed) {
  for (long i = blockIdx.x * 256L + threadIdx.x; i < count;
       i += gridDim.x * 256L) {
    Assign(out + i, deviation * UnitNormal(seed, static_cast<unsigned>(i)));
  }
}

std::vector<float2> RopeTable(int positions) {
  std::vector<float2> table(positions * 128);
  for (int p = 0; p < positions; ++p) {
    for (int d = 0; d < 128; ++d) {
      const double angle = p * std::pow(10000.0, -d / 128.0);
      table[p * 128 + d] = make_float2(std::cos(angle), std::sin(angle));
    }
  }
  return table;
}

}  // namespace

void FillNormal(float* out, long count, float deviation, unsigned seed) {
  FillKernel<<<1024, 256>>>(out, count, deviation, seed);
}
void FillNormal(Bf16* out, long count, float deviation, unsigned seed) {
  FillKernel<<<1024, 256>>>(out, count, deviation, seed);
}

template <typename T>
T* RandomExpert::Make(long count, float deviation) {
  memory_.push_back(std::make_unique<DeviceArray<char>>(count * sizeof(T)));
  T* data = reinterpret_cast<T*>(memory_.back()->data());
  FillNormal(data, count, deviation, seed_++);
  return data;
}

RandomExpert::RandomExpert(ExpertForm form) : form_(form) {
  const bool pi0 = form == ExpertForm::kPi0;
  const long w = kExpertWidth, mlp = kExpertMlp;
  for (ExpertLayerWeights& layer : weights_.layers) {
    layer.q = Make<Bf16>(2048 * w, 1 / 32.0f);
    layer.k = Make<Bf16>(256 * w, 1 / 32.0f);
    layer.v = Make<Bf16>(256 * w, 1 / 32.0f);
    layer.o = Make<Bf16>(w * 2048, 1 / 45.0f);
    layer.gate = Make<Bf16>(mlp * w, 1 / 32.0f);
    layer.up = Make<Bf16>(mlp * w, 1 / 32.0f);
    layer.down = Make<Bf16>(w * mlp, 1 / 64.0f);
  }
  if (pi0) weights_.suffix_mlp_out = Make<Bf16>(w * w, 1 / 20.0f);
  args_.form = form;
  args_.norm = Make<float>(
      pi0 ? kExpertNorms * w : long{kTimes} * kExpertNorms * 3 * w, 0.3f);
  args_.in_weight = Make<float>(w * 32, 0.2f);
  args_.in_bias = Make<float>(pi0 ? kTimes * w : w, 0.3f);
  args_.out_weight = Make<float>(32 * w, 1 / 32.0f);
  args_.out_bias = Make<float>(32, 0.3f);
  if (pi0) {
    args_.suffix_bias = Make<float>(w, 0.3f);
    args_.state_weight = Make<float>(w * 32, 0.2f);
    args_.state_bias = Make<float>(w, 0.3f);
  }
  memory_.push_back(std::make_unique<DeviceArray<char>>(ExpertPackedBytes()));
  char* packed = memory_.back()->data();
  EXPECT_EQ(LaunchExpertPack(weights_, packed, nullptr), cudaSuccess);
  args_.packed = packed;
  if (!pi0) {
    memory_.push_back(
        std::make_unique<DeviceArray<char>>(ExpertShiftBytes(kTimes)));
    float* shift = reinterpret_cast<float*>(memory_.back()->data());
    const ExpertShiftArgs a{weights_,       args_.norm, args_.out_weight,
                            args_.out_bias, kTimes,     shift};
    EXPECT_EQ(LaunchExpertShift(a, nullptr), cudaSuccess);
    args_.shift = shift;
  }
}

ExpertArgs RandomExpert::ModelArgs() const { return args_; }

RandomCall::RandomCall(const RandomExpert& expert, int horizon, int cache_len,
                       std::vector<ExpertCall> calls, float key_deviation)
    : expert_(expert),
      calls_(std::move(calls)),
      args_(expert.ModelArgs()),
      noise_(Normal(calls_.size() * horizon * 32, 5)),
      keys_(calls_.size() * kExpertDepth * cache_len * kHeadDim),
      values_(calls_.size() * kExpertDepth * cache_len * kHeadDim),
      rope_(RopeTable(cache_len + horizon + 1)),
      x_(noise_),
      velocity_(calls_.size() * calls_[0].steps * horizon * 32),
      state_(Normal(calls_.size() * 32, 6)),
      device_call_(calls_),
      workspace_(ExpertWorkspaceBytes(static_cast<int>(calls_.size()))) {
  const long row_stride = static_cast<long>(cache_len) * kHeadDim;
  const long stride = static_cast<long>(calls_.size()) * row_stride;
  for (std::size_t row = 0; row < calls_.size(); ++row) {
    const long valid = static_cast<long>(calls_[row].prefix) * kHeadDim;
    for (int layer = 0; layer < kExpertDepth; ++layer) {
      const long at = layer * stride + static_cast<long>(row) * row_stride;
      const unsigned seed = 1000 * static_cast<unsigned>(row) + layer;
      FillNormal(keys_.data() + at, valid, key_deviation, 100 + seed);
      FillNormal(values_.data() + at, valid, 1, 200 + seed);
    }
  }
  args_.rows = static_cast<int>(calls_.size());
  args_.horizon = horizon;
  args_.cache_len = cache_len;
  args_.state = args_.form == ExpertForm::kPi0 ? state_.data() : nullptr;
  args_.rope = rope_.data();
  args_.cache_k = keys_.data();
  args_.cache_v = values_.data();
  args_.cache_stride = stride;
  args_.row_stride = row_stride;
  args_.call = device_call_.data();
  args_.x = x_.data();
  args_.velocity = velocity_.data();
  args_.workspace = workspace_.data();
}

TwinArgs RandomCall::Twin() const {
  return TwinArgs{args_, expert_.weights(), calls_[0]};
}

cudaError_t RandomCall::Launch(cudaStream_t stream) const {
  return LaunchExpert(args_, stream);
}

cudaError_t RandomCall::LaunchAlone(int row) const {
  ExpertArgs alone = args_;
  const long chunk = static_cast<long>(args_.horizon) * kExpertActionDim;
  alone.rows = 1;
  if (alone.state != nullptr) alone.state += row * kExpertActionDim;
  alone.cache_k += row * args_.row_stride;
  alone.cache_v += row * args_.row_stride;
  alone.call += row;
  alone.x += row * chunk;
  alone.velocity += row * calls_[row].steps * chunk;
  return LaunchExpert(alone, nullptr);
}

void RandomCall::ResetNoise() {
  EXPECT_EQ(cudaMemcpy(x_.data(), noise_.data(), noise_.size() * sizeof(float),
                       cudaMemcpyHostToDevice),
            cudaSuccess);
}

std::vector<float> RandomCall::Result() const {
  std::vector<float> result = velocity_.Get();
  const std::vector<float> actions = x_.Get();
  result.insert(result.end(), actions.begin(), actions.end());
  return result;
}

double RelativeError(const std::vector<double>& a,
                     const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace piserve::kernels
