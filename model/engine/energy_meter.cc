// SPDX-License-Identifier: Apache-2.0
#include "model/engine/energy_meter.h"

#include <cuda_runtime.h>
#include <dlfcn.h>

namespace piserve::engine {

std::string PciBusId(int cuda_device) {
  char id[32] = {};
  const cudaError_t error = cudaDeviceGetPCIBusId(id, sizeof(id), cuda_device);
  return error == cudaSuccess ? id : "";
}

EnergyMeter::EnergyMeter(const std::string& pci_bus_id)
    : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
  if (library_ == nullptr) return;
  const auto init = reinterpret_cast<int (*)()>(dlsym(library_, "nvmlInit_v2"));
  const auto handle = reinterpret_cast<int (*)(const char*, void**)>(
      dlsym(library_, "nvmlDeviceGetHandleByPciBusId_v2"));
  if (init == nullptr || handle == nullptr || init() != 0 ||
      handle(pci_bus_id.c_str(), &device_) != 0) {
    return;
  }
  energy_ = reinterpret_cast<int (*)(void*, unsigned long long*)>(
      dlsym(library_, "nvmlDeviceGetTotalEnergyConsumption"));
  clock_ = reinterpret_cast<int (*)(void*, int, unsigned*)>(
      dlsym(library_, "nvmlDeviceGetClockInfo"));
}

EnergyMeter::~EnergyMeter() {
  if (library_ != nullptr) dlclose(library_);
}

std::optional<double> EnergyMeter::Joules() const {
  unsigned long long millijoules = 0;
  if (energy_ == nullptr || energy_(device_, &millijoules) != 0) {
    return std::nullopt;
  }
  return millijoules / 1000.0;
}

std::optional<double> EnergyMeter::ClockMhz() const {
  constexpr int kMultiprocessors = 1;  // NVML_CLOCK_SM
  unsigned mhz = 0;
  if (clock_ == nullptr || clock_(device_, kMultiprocessors, &mhz) != 0) {
    return std::nullopt;
  }
  return mhz;
}

}  // namespace piserve::engine
