// SPDX-License-Identifier: Apache-2.0
#include "model/reference/network.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <exception>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/flow.h"
#include "model/reference/masks.h"
#include "model/reference/rope.h"

namespace piserve::reference {

Batch Batch::Row(int index) const {
  const auto row = [index](const at::Tensor& t) {
    return t.narrow(0, index, 1);
  };
  return {row(pixels),     row(camera_mask), row(tokens),
          row(token_mask), row(state),       row(noise)};
}

absl::StatusOr<std::unique_ptr<Network>> Network::Create(
    const checkpoint::Weights& weights, const Options& options) {
  try {
    Parameters parameters(weights, options);
    std::unique_ptr<Network> network(new Network(parameters));
    if (!parameters.status().ok()) return parameters.status();
    return network;
  } catch (const std::exception& e) {
    return absl::InternalError(
        absl::StrCat("making the reference network: ", e.what()));
  }
}

Network::Network(Parameters& parameters)
    : variant_(parameters.weights().variant()),
      options_(parameters.options()),
      vision_(parameters, variant_.vision),
      // Tied: this name is the one that files hold (docs/pi0.md 3.3).
      embedding_(parameters.GetTable(
          "paligemma_with_expert.paligemma.lm_head.weight")),
      vlm_(parameters, Gemma::Role::kVlm),
      expert_(parameters, Gemma::Role::kExpert),
      suffix_(parameters),
      inverse_frequencies_(FrequencyTensor(variant_.vlm.head_dim, options_.rope)
                               .to(options_.device)) {}

at::Tensor Network::EncodeImages(const at::Tensor& images,
                                 const Trace& trace) const {
  return vision_.Encode(images, trace);
}

at::Tensor Network::EmbedTokens(const at::Tensor& tokens) const {
  const int width = variant_.vlm.width;
  const at::Tensor rows =
      at::index_select(embedding_, 0, tokens.reshape({-1})).to(at::kFloat);
  const double scale = std::sqrt(static_cast<double>(width));
  std::vector<std::int64_t> shape = tokens.sizes().vec();
  shape.push_back(width);
  return at::mul(rows, scale).to(options_.dtype()).view(shape);
}

Prefix Network::EmbedPrefix(const Batch& batch, const Trace& trace) const {
  return options_.layout == Layout::kCompact ? EmbedCompact(batch, trace)
                                             : EmbedPadded(batch, trace);
}

Prefix Network::EmbedCompact(const Batch& row, const Trace& trace) const {
  TORCH_CHECK(row.tokens.size(0) == 1, "compact layout: got ",
              row.tokens.size(0), " rows, want 1");
  const at::Tensor live = at::nonzero(row.camera_mask[0]).squeeze(-1);
  const at::Tensor tokens = at::masked_select(row.tokens, row.token_mask);
  std::vector<at::Tensor> parts;
  if (live.size(0) > 0) {
    const at::Tensor images =
        EncodeImages(at::index_select(row.pixels[0], 0, live), trace);
    for (int i = 0; i < live.size(0); ++i) {
      Record(trace, images.narrow(0, i, 1), "image_emb.", i);
    }
    parts.push_back(images.reshape({1, -1, variant_.vlm.width}));
  }
  parts.push_back(EmbedTokens(tokens.unsqueeze(0)));
  Record(trace, parts.back(), "lang_emb");
  Prefix prefix{at::cat(parts, 1), {}};
  prefix.pad =
      at::ones({1, prefix.embeddings.size(1)}, row.token_mask.options());
  return prefix;
}

Prefix Network::EmbedPadded(const Batch& batch, const Trace& trace) const {
  const auto rows = batch.tokens.size(0);
  std::vector<at::Tensor> parts, pads;
  for (int i = 0; i < Variant::kCameras; ++i) {
    parts.push_back(EncodeImages(batch.pixels.select(1, i), trace));
    pads.push_back(batch.camera_mask.narrow(1, i, 1).expand(
        {rows, variant_.vision.tokens()}));
    Record(trace, parts.back(), "image_emb.", i);
  }
  parts.push_back(EmbedTokens(batch.tokens));
  pads.push_back(batch.token_mask);
  Record(trace, parts.back(), "lang_emb");
  return {at::cat(parts, 1), at::cat(pads, 1)};
}

PrefixCache Network::Prefill(const Prefix& prefix, const Trace& trace) const {
  const at::Tensor positions = Positions(prefix.pad);
  Record(trace, prefix.embeddings, "prefix_emb");
  Record(trace, prefix.pad, "prefix_pad_mask");
  Record(trace, positions, "prefix_position_ids");
  Sequence sequence{
      RotationAt(positions, inverse_frequencies_, options_.dtype()), {}};
  if (options_.layout == Layout::kPadded) {
    const at::Tensor block =
        at::zeros({prefix.pad.size(1)}, prefix.pad.options().dtype(at::kLong));
    sequence.mask = AdditiveMask(AttentionMask(prefix.pad, block));
  }
  PrefixCache cache = vlm_.Prefill(prefix.embeddings, sequence, trace);
  cache.pad = prefix.pad;
  return cache;
}

at::Tensor Network::RunExpert(const PrefixCache& prefix,
                              const Suffix::Embedding& suffix,
                              const Trace& trace) const {
  const int suffix_len = variant_.suffix_len();
  const at::Tensor before = at::sum(prefix.pad, /*dim=*/1, /*keepdim=*/true);
  const at::Tensor positions =
      at::add(before, at::arange(suffix_len, before.options()));
  Record(trace, positions, "suffix_position_ids");
  const Sequence sequence{
      RotationAt(positions, inverse_frequencies_, options_.dtype()),
      AdditiveMask(
          SuffixMask(prefix.pad, variant_.action_horizon, suffix_len))};
  return expert_.Denoise(suffix.tokens.to(options_.dtype()), suffix.cond,
                         prefix, sequence, trace);
}

at::Tensor Network::DenoiseStep(const PrefixCache& prefix,
                                const at::Tensor& state, const at::Tensor& x,
                                float t, const Trace& trace) const {
  Record(trace, at::full({}, t, at::kFloat), "time");
  const Suffix::Embedding suffix =
      suffix_.Embed(state.to(at::kFloat), x, t, trace);
  Record(trace, suffix.tokens, "suffix_emb");
  const at::Tensor out = RunExpert(prefix, suffix, trace);
  Record(trace, out, "expert_out");
  const at::Tensor velocity = suffix_.Velocity(out, variant_.action_horizon);
  Record(trace, velocity, "v_t");
  return velocity;
}

at::Tensor Network::Denoise(const PrefixCache& prefix, const at::Tensor& state,
                            const at::Tensor& noise, int steps,
                            const Trace& trace) const {
  const FlowSteps flow = FlowStepsOf(steps);
  at::Tensor x = noise;
  Record(trace, x, "x_t");
  for (const float t : flow.times) {
    const at::Tensor v = DenoiseStep(prefix, state, x, t, trace);
    // Two roundings, not one fused operation.
    x = at::add(x, at::mul(v, flow.dt));
    Record(trace, x, "x_t");
  }
  return x;
}

at::Tensor Network::SampleActions(const Batch& batch, int steps,
                                  const Trace& trace) const {
  const auto run = [&](const Batch& rows) {
    const PrefixCache cache = Prefill(EmbedPrefix(rows, trace), trace);
    return Denoise(cache, rows.state, rows.noise, steps, trace);
  };
  if (options_.layout == Layout::kPadded) return run(batch);
  std::vector<at::Tensor> actions;
  for (int i = 0; i < batch.tokens.size(0); ++i) {
    actions.push_back(run(batch.Row(i)));
  }
  return at::cat(actions);
}

}  // namespace piserve::reference
