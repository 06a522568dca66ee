// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "piserve/v1/policy.pb.h"

namespace piserve::testing {

// An observation of the robot `pi0_libero` with nothing wrong.
inline v1::InferRequest GoodRequest() {
  v1::InferRequest request;
  v1::ObservationRequest& observation = *request.mutable_observation();
  observation.set_prompt("put the bowl on the plate");
  for (int i = 0; i < 8; ++i) observation.add_state(0);
  for (const char* name : {"observation/image", "observation/wrist_image"}) {
    v1::Image& image = *observation.add_images();
    image.set_name(name);
    image.set_encoding(v1::IMAGE_ENCODING_RGB8);
    image.set_width(224);
    image.set_height(224);
    image.set_data(std::string(224 * 224 * 3, '\x40'));
  }
  return request;
}

}  // namespace piserve::testing
