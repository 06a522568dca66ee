// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "tests/model/kernels/benchmark.h"
#include "tests/model/kernels/device.h"

// What kernel_benchmark times, by kind of kernel; a case takes its memory when
// it is made.
namespace piserve::kernels {

using CaseMaker = std::function<KernelCase()>;

std::vector<CaseMaker> GemmCases();
std::vector<CaseMaker> NormGemmCases();
std::vector<CaseMaker> SuffixCases();

// Normal bf16 numbers of any count from one host array: drawing gigabytes takes
// longer than timing them.
std::shared_ptr<DeviceArray<Bf16>> RandomBf16(std::size_t size,
                                              float deviation = 1);
// Normal FP32 numbers.
std::shared_ptr<DeviceArray<float>> RandomFloat(std::size_t size, float mean,
                                                float deviation);

}  // namespace piserve::kernels
