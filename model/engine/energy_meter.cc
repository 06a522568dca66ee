// SPDX-License-Identifier: Apache-2.0
#include "model/engine/energy_meter.h"

#include <dlfcn.h>

namespace piserve::engine {

EnergyMeter::EnergyMeter() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
  if (library_ == nullptr) return;
  const auto init = reinterpret_cast<int (*)()>(dlsym(library_, "nvmlInit_v2"));
  const auto handle = reinterpret_cast<int (*)(unsigned, void**)>(
      dlsym(library_, "nvmlDeviceGetHandleByIndex_v2"));
  if (init == nullptr || handle == nullptr || init() != 0 ||
      handle(0, &device_) != 0) {
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

double EnergyMeter::Joules() const {
  unsigned long long millijoules = 0;
  if (energy_ == nullptr || energy_(device_, &millijoules) != 0) return 0;
  return millijoules / 1000.0;
}

double EnergyMeter::ClockMhz() const {
  constexpr int kMultiprocessors = 1;  // NVML_CLOCK_SM
  unsigned mhz = 0;
  if (clock_ == nullptr || clock_(device_, kMultiprocessors, &mhz) != 0) {
    return 0;
  }
  return mhz;
}

}  // namespace piserve::engine
