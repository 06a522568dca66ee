// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/policy.h"
#include "model/variant.h"

namespace piserve::engine {

// Row `index` of a synthetic wave: the same input for the same index.
void FillRow(const Variant& variant, const WaveShape& shape, int index,
             const SlotRow& row);

// A slot whose rows are filled.
absl::StatusOr<std::unique_ptr<Slot>> FilledSlot(Policy& policy,
                                                 const WaveShape& shape);

// One wave, from a filled slot to its actions in host memory.
WaveResult Call(Policy& policy, std::unique_ptr<Slot> slot,
                const WaveShape& shape);

// How waves follow each other.
struct Pace {
  // From the begin of a call to that of the next, as a robot's would be; or as
  // soon as that is over: then the device's power limit lowers its clock.
  absl::Duration period = absl::ZeroDuration();
  // With more than one the next waves are submitted while one runs, as the
  // server does. At most the policy's slots in flight.
  int in_flight = 1;
};

// What waves of one shape took.
struct CallTimes {
  std::vector<double> ms;  // each; of several in flight, since the one before
  std::map<std::string, std::vector<double>> stages;  // ms
  double joules = 0;                                  // of all of them
  double seconds = 0;
  std::vector<float> actions;  // of row 0, normalised
};

// After a few calls that do not count. A row's error, if there is one.
absl::StatusOr<CallTimes> TimeCalls(Policy& policy, const WaveShape& shape,
                                    int calls, const Pace& pace = {});

// `p` in [0, 1]; of one value or more.
double Percentile(std::vector<double> values, double p);

}  // namespace piserve::engine
