// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::engine {

// What the first GPU has used since its driver started, by NVML, which is
// looked for at run time: 0 where it is missing.
class EnergyMeter {
 public:
  EnergyMeter();
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  double Joules() const;
  // Of the multiprocessors, now.
  double ClockMhz() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
  int (*energy_)(void* device, unsigned long long* millijoules) = nullptr;
  int (*clock_)(void* device, int domain, unsigned* mhz) = nullptr;
};

}  // namespace piserve::engine
