// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/engine/buffers.h"
#include "model/engine/launcher.h"
#include "model/engine/optimisations.h"
#include "model/engine/wave_layout.h"
#include "model/engine/weights.h"
#include "model/variant.h"

namespace piserve::engine {

// Everything that a stage works on; borrowed.
struct StageContext {
  const Variant& variant;
  const EngineWeights& weights;
  Buffers& buffers;
  const Optimisations& optimisations;
};

// The three stages. Each enqueues on the launcher's stream, which must be
// torch's current one, and may be captured. They throw as ATen does.

// Begins the next micro-wave and encodes its images: pixels -> image_tokens.
// Source: openpi transformers_replace siglip (docs/pi0.md 2.3).
void EnqueueVision(const StageContext& context, const PrefixShape& shape,
                   Launcher& launcher);

// image_tokens, tokens -> keys, values at the micro-wave's rows (docs/pi0.md
// 2.4 to 2.8).
void EnqueuePrefill(const StageContext& context, const PrefixShape& shape,
                    Launcher& launcher);

// The first step of pi0 carries the state token too, whose keys and values the
// later ones find in the cache; pi0.5 has no such token and no such difference.
enum class StepKind { kFirst, kLater };

// One Euler step of rows 0 .. rows-1: x, keys, values -> x, and the step index
// moves on (docs/pi0.md 2.10 to 2.12).
void EnqueueStep(const StageContext& context, int rows, StepKind kind,
                 Launcher& launcher);

}  // namespace piserve::engine
