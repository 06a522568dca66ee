// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

namespace piserve::engine {

// CUDA's name of a device on this machine's bus: NVML counts devices that CUDA
// was told not to see. Empty if there is no such device.
std::string PciBusId(int cuda_device);

// What a GPU has used since its driver started, by NVML, which is looked for at
// run time: absent where it is missing or does not tell. A driver that hangs
// hangs all of these.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::string& pci_bus_id);
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  // Of the whole device, whoever uses it.
  std::optional<double> Joules() const;
  // Of the multiprocessors, now.
  std::optional<double> ClockMhz() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
  int (*energy_)(void* device, unsigned long long* millijoules) = nullptr;
  int (*clock_)(void* device, int domain, unsigned* mhz) = nullptr;
};

}  // namespace piserve::engine
