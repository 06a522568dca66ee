// SPDX-License-Identifier: Apache-2.0
#include "server/metrics_history.h"

#include <algorithm>
#include <utility>

namespace piserve::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Families = std::vector<MetricFamily>;

const ClientMetric* Find(const Families& families, const std::string& name,
                         const std::vector<ClientMetric::Label>& labels) {
  for (const MetricFamily& family : families) {
    if (family.name != name) continue;
    for (const ClientMetric& metric : family.metric) {
      if (metric.label == labels) return &metric;
    }
  }
  return nullptr;
}

void Subtract(const ClientMetric& before, ClientMetric& now) {
  now.counter.value -= before.counter.value;
  now.histogram.sample_count -= before.histogram.sample_count;
  now.histogram.sample_sum -= before.histogram.sample_sum;
  const std::size_t buckets =
      std::min(before.histogram.bucket.size(), now.histogram.bucket.size());
  for (std::size_t i = 0; i < buckets; ++i) {
    now.histogram.bucket[i].cumulative_count -=
        before.histogram.bucket[i].cumulative_count;
  }
}

}  // namespace

Families Since(const Families& before, const Families& now) {
  Families out = now;
  for (MetricFamily& family : out) {
    for (ClientMetric& metric : family.metric) {
      const ClientMetric* old = Find(before, family.name, metric.label);
      if (old != nullptr) Subtract(*old, metric);
    }
  }
  return out;
}

MetricsHistory::MetricsHistory(Options options)
    : options_(std::move(options)), thread_([this] { Run(); }) {}

MetricsHistory::~MetricsHistory() {
  {
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

MetricsSnapshots MetricsHistory::Get() {
  auto now = Take();
  batching::MutexLock lock(mutex_);
  MetricsSnapshots out(kept_.begin(), kept_.end());
  // The thread may have taken one in between.
  while (!out.empty() && out.back()->time >= now->time) out.pop_back();
  out.push_back(std::move(now));
  return out;
}

std::shared_ptr<const MetricsSnapshot> MetricsHistory::Take() {
  batching::MutexLock lock(collecting_);
  return std::make_shared<const MetricsSnapshot>(
      MetricsSnapshot{options_.clock->Now(), options_.collect()});
}

void MetricsHistory::Run() {
  for (;;) {
    auto snapshot = Take();
    const absl::Time next = snapshot->time + options_.interval;
    batching::MutexLock lock(mutex_);
    kept_.push_back(std::move(snapshot));
    if (kept_.size() > options_.kept) kept_.pop_front();
    while (!stopping_ && options_.clock->Now() < next) {
      wake_.WaitFor(mutex_, next - options_.clock->Now());
    }
    if (stopping_) return;
  }
}

}  // namespace piserve::server
