// SPDX-License-Identifier: Apache-2.0
#include "model/engine/graph_edges.h"

#include <cstddef>
#include <vector>

#include "model/engine/cuda_status.h"

namespace piserve::engine {
namespace {

struct Edge {
  cudaGraphNode_t from = nullptr;
  cudaGraphNode_t to = nullptr;
  cudaGraphEdgeData data = {};
};

cudaError_t EdgesOf(cudaGraph_t graph, std::vector<Edge>& edges) {
  std::size_t count = 0;
  if (cudaError_t e =
          cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count);
      e != cudaSuccess) {
    return e;
  }
  std::vector<cudaGraphNode_t> from(count), to(count);
  std::vector<cudaGraphEdgeData> data(count);
  const cudaError_t e =
      cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &count);
  for (std::size_t i = 0; i < count; ++i) {
    edges.push_back({from[i], to[i], data[i]});
  }
  return e;
}

cudaError_t MakeFull(cudaGraph_t graph, const Edge& edge) {
  if (edge.data.type != cudaGraphDependencyTypeProgrammatic) return cudaSuccess;
  if (cudaError_t e = cudaGraphRemoveDependencies(graph, &edge.from, &edge.to,
                                                  &edge.data, 1);
      e != cudaSuccess) {
    return e;
  }
  const cudaGraphEdgeData full = {};
  return cudaGraphAddDependencies(graph, &edge.from, &edge.to, &full, 1);
}

}  // namespace

absl::Status WaitForWholeKernels(cudaGraph_t graph) {
  std::vector<Edge> edges;
  cudaError_t error = EdgesOf(graph, edges);
  for (std::size_t i = 0; i < edges.size() && error == cudaSuccess; ++i) {
    error = MakeFull(graph, edges[i]);
  }
  return CudaStatus(error, "a graph's edges");
}

}  // namespace piserve::engine
