// SPDX-License-Identifier: Apache-2.0
// Looks into a checkpoint, or makes a synthetic one of any size:
//   checkpoint_tool inspect FOLDER
//   checkpoint_tool synthesize --variant variant.json --seed N --out FOLDER
//       [--dtype bfloat16|float32]
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint/file_weights.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/synthesize.h"
#include "model/checkpoint/tensor_index.h"
#include "model/checkpoint/variant_json.h"

ABSL_FLAG(std::string, variant, "",
          "variant.json with the sizes (inspect: default FOLDER's, if any)");
ABSL_FLAG(uint64_t, seed, 1, "seed of the synthetic weights");
ABSL_FLAG(std::string, out, "", "folder to write");
ABSL_FLAG(std::string, dtype, "bfloat16", "bfloat16 or float32");

namespace piserve::checkpoint {
namespace {

constexpr char kUsage[] =
    "checkpoint_tool inspect FOLDER\n"
    "checkpoint_tool synthesize --variant variant.json --seed N --out FOLDER";

absl::StatusOr<Variant> VariantOf(const Safetensors& file,
                                  const std::string& folder) {
  const std::string named = absl::GetFlag(FLAGS_variant);
  const std::string path =
      named.empty() ? absl::StrCat(folder, "/variant.json") : named;
  absl::StatusOr<VariantFile> sizes = ReadVariantJson(path);
  if (sizes.ok()) return sizes->variant;
  if (!named.empty() || !absl::IsNotFound(sizes.status())) {
    return sizes.status();
  }
  absl::StatusOr<TensorIndex> index = IndexTensors(file);
  if (!index.ok()) return index.status();
  return DetectVariant(*index);
}

void PrintTensors(const Safetensors& file) {
  std::map<std::string, int> dtypes;
  std::size_t data_bytes = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    ++dtypes[std::string(Name(tensor.dtype))];
    data_bytes += tensor.data.size();
  }
  std::cout << "tensors  " << file.tensors().size() << ", " << data_bytes
            << " bytes\n";
  for (const auto& [dtype, count] : dtypes) {
    std::cout << "  " << dtype << "  " << count << "\n";
  }
}

absl::Status Inspect(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/model.safetensors");
  absl::StatusOr<Safetensors> file = Safetensors::Open(path);
  if (!file.ok()) {
    return absl::Status(file.status().code(),
                        absl::StrCat(path, ": ", file.status().message()));
  }
  PrintTensors(*file);
  absl::StatusOr<Variant> variant = VariantOf(*file, folder);
  if (!variant.ok()) return variant.status();
  auto weights = MakeFileWeights(*file, *variant);
  if (!weights.ok()) return weights.status();
  std::cout << "variant  " << DebugString(*variant) << "\n";
  std::cout << "digest   " << (*weights)->digest() << "\n";
  return absl::OkStatus();
}

absl::Status Synthesize() {
  const std::string dtype = absl::GetFlag(FLAGS_dtype);
  if (dtype != "bfloat16" && dtype != "float32") {
    return absl::InvalidArgumentError(
        absl::StrCat("--dtype: got ", dtype, ", want bfloat16 or float32"));
  }
  const std::string out = absl::GetFlag(FLAGS_out);
  if (out.empty()) return absl::InvalidArgumentError("--out: missing");
  const std::string path = absl::GetFlag(FLAGS_variant);
  absl::StatusOr<VariantFile> sizes = ReadVariantJson(path);
  if (!sizes.ok()) {
    return absl::Status(
        sizes.status().code(),
        absl::StrCat("--variant ", path, ": ", sizes.status().message()));
  }
  return WriteSyntheticCheckpoint(
      sizes->variant, absl::GetFlag(FLAGS_seed),
      dtype == "float32" ? DType::kFloat32 : DType::kBFloat16, out);
}

absl::Status Run(const std::vector<char*>& args) {
  const std::string command = args.size() > 1 ? args[1] : "";
  if (command == "inspect" && args.size() == 3) return Inspect(args[2]);
  if (command == "synthesize" && args.size() == 2) return Synthesize();
  return absl::InvalidArgumentError(absl::StrCat("usage:\n", kUsage));
}

}  // namespace
}  // namespace piserve::checkpoint

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(piserve::checkpoint::kUsage);
  const absl::Status status =
      piserve::checkpoint::Run(absl::ParseCommandLine(argc, argv));
  if (status.ok()) return 0;
  std::cerr << status.message() << "\n";
  return 1;
}
