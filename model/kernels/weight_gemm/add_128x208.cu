#include "model/kernels/weight_gemm/add_tile.cuh"
namespace piserve::kernels::weight_gemm {
template cudaError_t LaunchAdd<128, 208, Pairs::kOfWeights>(const AddGemmArgs&, int, cudaStream_t);
}
