// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/observation_check.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::client {
namespace {

std::string CameraNames(const v1::PolicyInfo& info) {
  return absl::StrJoin(info.cameras(), ", ",
                       [](std::string* out, const v1::Camera& camera) {
                         absl::StrAppend(out, camera.name());
                       });
}

absl::Status CheckNames(const ObservationIn& observation,
                        const v1::PolicyInfo& info) {
  std::set<std::string> seen;
  for (std::size_t i = 0; i < observation.images.size(); ++i) {
    const std::string& name = observation.images[i].name;
    const bool known =
        std::any_of(info.cameras().begin(), info.cameras().end(),
                    [&](const v1::Camera& c) { return c.name() == name; });
    const std::string field = absl::StrCat("images[", i, "].name");
    if (!known) {
      return InvalidObservation(
          field, absl::StrCat("got '", name, "', want ", CameraNames(info)));
    }
    if (!seen.insert(name).second) {
      return InvalidObservation(field, absl::StrCat("got '", name, "' twice"));
    }
  }
  for (const v1::Camera& camera : info.cameras()) {
    if (camera.use() == v1::CAMERA_USE_REQUIRED &&
        seen.count(camera.name()) == 0) {
      return InvalidObservation(
          "images", absl::StrCat("no image of the required camera '",
                                 camera.name(), "'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

int StateSize(const v1::PolicyInfo& info) {
  int size = 0;
  for (const v1::Block& block : info.state()) size += block.size();
  return size;
}

absl::Status CheckObservation(const ObservationIn& observation,
                              const v1::PolicyInfo& info) {
  const int want = StateSize(info);
  if (static_cast<int>(observation.state.size()) != want) {
    return InvalidObservation(
        "state",
        absl::StrCat("got ", observation.state.size(), " values, want ", want));
  }
  return CheckNames(observation, info);
}

}  // namespace piserve::client
