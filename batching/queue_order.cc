// SPDX-License-Identifier: Apache-2.0
#include "batching/queue_order.h"

#include <algorithm>
#include <cstdint>
#include <tuple>

namespace piserve::batching {
namespace {

struct Key {
  Class priority;
  std::uint64_t client;
  int turn;  // the task's place among those of its client and class
  absl::Time due;
  absl::Time arrival;
  int position;
};

}  // namespace

std::vector<int> ServingOrder(std::span<const TaskTraits* const> tasks,
                              absl::Duration patience) {
  std::vector<Key> keys;
  keys.reserve(tasks.size());
  for (int i = 0; i < static_cast<int>(tasks.size()); ++i) {
    const TaskTraits& task = *tasks[i];
    keys.push_back({task.priority, task.client, 0,
                    std::min(task.deadline, task.arrival + patience),
                    task.arrival, i});
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.priority, a.client, a.due, a.arrival, a.position) <
           std::tie(b.priority, b.client, b.due, b.arrival, b.position);
  });
  for (std::size_t i = 1; i < keys.size(); ++i) {
    const Key& last = keys[i - 1];
    if (keys[i].priority == last.priority && keys[i].client == last.client) {
      keys[i].turn = last.turn + 1;
    }
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.priority, a.turn, a.due, a.arrival, a.position) <
           std::tie(b.priority, b.turn, b.due, b.arrival, b.position);
  });
  std::vector<int> order;
  order.reserve(keys.size());
  for (const Key& key : keys) order.push_back(key.position);
  return order;
}

}  // namespace piserve::batching
