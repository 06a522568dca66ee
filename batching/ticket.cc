// SPDX-License-Identifier: Apache-2.0
#include "batching/ticket.h"

#include <utility>

#include "batching/batcher_core.h"

namespace piserve::batching {

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  if (this != &other) {
    Release();
    core_ = std::exchange(other.core_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

void Ticket::Resize(std::size_t bytes) { core_->Resize(id_, bytes); }

void Ticket::SetCost(int cameras, int prompt_tokens) {
  core_->SetCost(id_, cameras, prompt_tokens);
}

void Ticket::Release() {
  if (core_ != nullptr) std::exchange(core_, nullptr)->Release(id_);
}

}  // namespace piserve::batching
