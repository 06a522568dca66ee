// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace piserve::kernels {

using Bf16 = __nv_bfloat16;

// The largest relative error of one rounding to bf16.
inline constexpr double kBf16Half = 0x1p-8;
// ... of one FP32 operation.
inline constexpr double kFp32Half = 0x1p-24;

// Skips, aloud, where there is no device.
class KernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "SKIPPED: kernels need a CUDA device: "
                   << cudaGetErrorString(error);
    }
  }
  void TearDown() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return;
    const cudaError_t error = cudaDeviceSynchronize();
    EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
  }
};

// Device memory; born full of NaN, so that what a kernel leaves out shows.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    EXPECT_EQ(cudaMalloc(&data_, size * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0xFF, size * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  std::size_t size() const { return size_; }
  std::vector<T> Get() const { return Get(size_); }
  // The first ones only.
  std::vector<T> Get(std::size_t count) const {
    std::vector<T> values(count);
    const cudaError_t error = cudaMemcpy(
        values.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost);
    EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

inline std::vector<float> Normal(std::size_t size, unsigned seed,
                                 float deviation = 1, float mean = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(size);
  for (float& v : values) v = normal(generator);
  return values;
}

inline std::vector<Bf16> Round(const std::vector<float>& values) {
  std::vector<Bf16> rounded(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    rounded[i] = __float2bfloat16_rn(values[i]);
  }
  return rounded;
}

inline std::vector<Bf16> NormalBf16(std::size_t size, unsigned seed,
                                    float deviation = 1) {
  return Round(Normal(size, seed, deviation));
}

inline double Value(float v) { return v; }
inline double Value(Bf16 v) { return __bfloat162float(v); }

// Calls body(i) for 0 <= i < count on all cores.
inline void ParallelFor(int count, const std::function<void(int)>& body) {
  const int workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int w = 0; w < workers; ++w) {
    threads.emplace_back([&, w] {
      for (int i = w; i < count; i += workers) body(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A twin's answer and how far the kernel may be from it.
struct Expected {
  double value = 0;
  double tolerance = 0;
};

// Every element within its tolerance; NaN never is.
template <typename T>
void ExpectWithin(const std::vector<T>& got, const std::vector<Expected>& want,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  std::size_t wrong = 0, first = 0;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(Value(got[i]) - want[i].value);
    if (!(error <= want[i].tolerance) && wrong++ == 0) first = i;
    worst = std::max(worst, error / want[i].tolerance);
  }
  EXPECT_EQ(wrong, 0u) << what << ": of " << got.size() << ", first at "
                       << first << ": got " << Value(got[first]) << ", want "
                       << want[first].value << " +- " << want[first].tolerance
                       << "; worst " << worst << " tolerances";
}

// Every `stride`-th of the first `size` values against twin(its index).
template <typename T, typename Twin>
void ExpectEvery(int stride, const std::vector<T>& values, std::size_t size,
                 const std::string& what, const Twin& twin) {
  const int count = static_cast<int>(size / stride);
  std::vector<T> got(count);
  std::vector<Expected> want(count);
  ParallelFor(count, [&](int i) {
    const long at = static_cast<long>(i) * stride;
    got[i] = values[at];
    want[i] = twin(at);
  });
  ExpectWithin(got, want, what);
}

// Row `row` of rows of `width`.
template <typename T>
std::vector<T> RowOf(const std::vector<T>& values, int row, int width) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row) * width;
  return std::vector<T>(begin, begin + width);
}

// Bits, so that NaN equals itself.
template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// The last values, which a kernel had no business with, are still `tail`.
template <typename T>
void ExpectTail(const std::vector<T>& values, const std::vector<T>& tail,
                const std::string& what) {
  ASSERT_GE(values.size(), tail.size()) << what;
  EXPECT_TRUE(SameBits({values.end() - tail.size(), values.end()}, tail))
      << what;
}

// What was made of tokens that std::rotate had moved by `by` places: each has
// the bits of its old place. The first, which the caller spoilt, is not looked
// at.
template <typename T>
void ExpectRotated(const std::vector<T>& rotated, const std::vector<T>& old,
                   int by, int width) {
  const int tokens = static_cast<int>(old.size()) / width;
  for (int t = 1; t < tokens; ++t) {
    ASSERT_TRUE(SameBits(RowOf(rotated, t, width),
                         RowOf(old, (t + by) % tokens, width)))
        << t;
  }
}

}  // namespace piserve::kernels
