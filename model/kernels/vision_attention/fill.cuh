// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/tma.cuh"
#include "model/kernels/vision_attention/work.cuh"
#include "model/kernels/warpgroup.cuh"

// Bulk copies of queries, keys and values. There is no producer: the first are
// asked for by one thread, and each further one by whoever makes its place
// free. A stage's next head therefore lands only behind every warp's use of the
// one before, and no barrier is ever a phase ahead of one who waits for it.
namespace piserve::kernels::vision_attention {

__device__ inline void FillHead(const Maps& maps, const Work& work, int head,
                                Part part, Keys& to, std::uint64_t* full) {
  const Place from = work.KeysOf(head);
  BarrierArriveExpecting(full, kTokens * kTokenBytes);
  CopyBox(maps.tile, to.tile, full, 0, from.head, part, from.token);
  CopyBox(maps.piece, to.piece, full, kColumns, from.head, part, from.token);
}
__device__ inline void FillKeys(const Maps& maps, const Work& work, int head,
                                Shared& shared) {
  const int stage = head % kStages;
  FillHead(maps, work, head, kKey, shared.keys[stage],
           &shared.keys_full[stage]);
}
__device__ inline void FillValues(const Maps& maps, const Work& work, int head,
                                  Shared& shared) {
  const int stage = head % kStages;
  FillHead(maps, work, head, kValue, shared.values[stage],
           &shared.values_full[stage]);
}

// Where there is such a task.
__device__ inline void FillQueries(const Maps& maps, const Work& work, int task,
                                   Shared& shared) {
  if (task >= work.count) return;
  const Place from = work.QueriesOf(task);
  Queries& to = shared.queries[task % kSlots];
  std::uint64_t* full = &shared.queries_full[task % kSlots];
  BarrierArriveExpecting(full, kRows * kTokenBytes);
  CopyBox(maps.query_tile, to.tile, full, 0, from.head, kQuery, from.token);
  CopyBox(maps.query_piece, to.piece, full, kColumns, from.head, kQuery,
          from.token);
}

// Every stage and slot, in the order of need.
__device__ inline void FillAll(const Maps& maps, const Work& work,
                               Shared& shared) {
  const bool more = work.LastHead() > 0;
  FillKeys(maps, work, 0, shared);
  for (int i = 0; i < kGroups; ++i) FillQueries(maps, work, i, shared);
  FillValues(maps, work, 0, shared);
  for (int i = kGroups; i < kTasksPerHead; ++i) {
    FillQueries(maps, work, i, shared);
  }
  if (more) FillKeys(maps, work, 1, shared);
  for (int i = kTasksPerHead; i < kSlots; ++i) {
    FillQueries(maps, work, i, shared);
  }
  if (more) FillValues(maps, work, 1, shared);
}

// By how many warps fewer than a whole head this CTA's first one is left: those
// of its tasks leave it, and those of warpgroups that only let it pass.
__device__ inline int MissingWarps(const Work& work) {
  return kWarpsPerHead - max(work.TasksOfFirstHead(), kGroups) * kWarps;
}

// This warp leaves; whether it is the head's last one. Then the others' reads
// are behind it.
__device__ inline bool IsLastToLeave(int* left) {
  int before;
  asm volatile("atom.acq_rel.cta.shared::cta.add.s32 %0, [%1], 1;\n"
               : "=r"(before)
               : "r"(SharedAddress(left))
               : "memory");
  return (before + 1) % kWarpsPerHead == 0;
}

// This warp's reads of a head's keys or values for one task are complete. The
// last one asks for those of the head that comes to this stage next, if any.
__device__ inline void LeaveKeys(const Maps& maps, const Work& work, int head,
                                 Shared& shared) {
  const int next = head + kStages;
  if (threadIdx.x % 32 == 0 && next <= work.LastHead() &&
      IsLastToLeave(&shared.keys_left[head % kStages])) {
    FillKeys(maps, work, next, shared);
  }
  __syncwarp();
}
__device__ inline void LeaveValues(const Maps& maps, const Work& work, int head,
                                   Shared& shared) {
  const int next = head + kStages;
  if (threadIdx.x % 32 == 0 && next <= work.LastHead() &&
      IsLastToLeave(&shared.values_left[head % kStages])) {
    FillValues(maps, work, next, shared);
  }
  __syncwarp();
}

// For a warpgroup without a task of the first head. It waits for it and leaves
// it like the others: a barrier tells a phase from its neighbours only, so
// nobody may miss one.
__device__ inline void LetFirstHeadPass(const Maps& maps, const Work& work,
                                        Shared& shared) {
  BarrierWait(&shared.keys_full[0], 0);
  __syncwarp();  // one lane leaves for all
  LeaveKeys(maps, work, 0, shared);
  BarrierWait(&shared.values_full[0], 0);
  __syncwarp();
  LeaveValues(maps, work, 0, shared);
}

}  // namespace piserve::kernels::vision_attention
