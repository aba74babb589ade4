// Fuzz target: safetensors. Every tensor of an accepted file can be read.
#include <cstdint>

#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cambium;
  try {
    const SafetensorsFile file(nullptr, {reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    file.metadata();
    for (const SafetensorsInfo& info : file.tensors()) {
      if (info.dtype()) file.tensor(info.name).to_vector<double>();
    }
  } catch (const Error&) {
  }
  return 0;
}
