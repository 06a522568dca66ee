// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace piserve::reference {

// Index of each valid token among the valid ones, -1 before the first; an
// invalid token repeats the one before. pad: bool [B, S] (true is valid);
// int64 [B, S] (docs/pi0.md 2.5).
at::Tensor Positions(const at::Tensor& pad);

// Who may look at whom among tokens of one sequence. `block`: int64 [S], 1
// where a new block begins; a token sees its own block and those before. bool
// [B, S, S].
// Source: openpi pi0_pytorch.py, make_att_2d_masks.
at::Tensor AttentionMask(const at::Tensor& pad, const at::Tensor& block);

// What the suffix sees: every valid prefix token, then its own blocks. The
// state token (pi0) and the first action each begin a block (docs/pi0.md 2.10,
// 2.11). bool [B, T, S + T]; suffix tokens are all valid.
at::Tensor SuffixMask(const at::Tensor& prefix_pad, int action_horizon,
                      int suffix_len);

// fp32 [B, 1, Q, S]: 0 where allowed, -2.3819763e38 elsewhere. Finite, so that
// a row that sees nothing stays finite.
// Source: openpi pi0_pytorch.py, _prepare_attention_masks_4d.
at::Tensor AdditiveMask(const at::Tensor& allowed);

}  // namespace piserve::reference
