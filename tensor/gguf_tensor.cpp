// Tensors of GGUF files: shared with the mapped file where the elements are ours, else turned into floats.
#include <cstring>

#include "kernels/kernels.h"
#include "tensor/gguf.h"
#include "tensor/json_reader.h"

namespace cambium {

namespace {

Tensor converted(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor out = empty(x.shape(), dtype);
  kernels::Context context;
  kernels::kernels_for(context.device).copy(context, out.view(), x.view());
  return out;
}

// Blocks go to the device as they lie in the file and become numbers there.
Tensor decoded(const std::shared_ptr<const void>& keeper, std::span<const std::byte> bytes, const GgufTensorInfo& info, DType dtype, Device device) {
  const Layout line = Layout::contiguous({static_cast<std::int64_t>(bytes.size())});
  Tensor blocks(Storage::mapped(keeper, bytes.data(), bytes.size()), line, DType::u8);
  if (device != Device{}) {
    auto there = Storage::allocate(device, bytes.size());
    kernels::copy_bytes(device, there->data(), Device{}, bytes.data(), bytes.size());
    blocks = Tensor(std::move(there), line, DType::u8);
  }
  const Tensor out = empty({info.shape.count()}, dtype, device);
  kernels::Context context{device};
  kernels::kernels_for(device).dequantize(context, out.view(), blocks.view(), info.type);
  return Tensor(out.storage(), Layout::contiguous(info.shape), dtype);
}

void check_known(const std::string& path, std::string_view name, GgmlType type) {
  check<DTypeError>(ggml_format(type).dtype || ggml_format(type).dequantizes, path, ": tensor ", quote_for_message(name), ": elements of type ", type,
                    " are not supported: use F32, F16, BF16, Q8_0, Q4_0 to Q5_1 or Q2_K to Q6_K");
}

}  // namespace

Shape GgufTensorInfo::gguf_shape() const {
  std::vector<std::int64_t> sizes(shape.begin(), shape.end());
  return Shape(std::vector<std::int64_t>(sizes.rbegin(), sizes.rend()));
}

Tensor GgufFile::tensor(std::string_view name) const {
  const GgufTensorInfo& info = this->info(name);
  const GgmlFormat& format = ggml_format(info.type);
  check_known(path(), name, info.type);
  const std::span<const std::byte> bytes = raw(info);
  if (!format.dtype) return decoded(keeper_, bytes, info, DType::f32, {});
  const Layout layout = Layout::contiguous(info.shape);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (address % static_cast<std::uintptr_t>(item_size(*format.dtype)) == 0) {
    return Tensor(Storage::mapped(keeper_, bytes.data(), bytes.size()), layout, *format.dtype);
  }
  auto storage = Storage::allocate({}, bytes.size());
  std::memcpy(storage->data(), bytes.data(), bytes.size());
  return Tensor(std::move(storage), layout, *format.dtype);
}

Tensor GgufFile::tensor(std::string_view name, DType dtype, Device device) const {
  const GgufTensorInfo& info = this->info(name);
  check_known(path(), name, info.type);
  const DType own = ggml_format(info.type).dtype.value_or(DType::f32);
  const bool possible = is_float(own) && (dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16);
  check<DTypeError>(own == dtype || possible, path(), ": tensor ", quote_for_message(name), ": ", info.type, " cannot be read as ", dtype);
  return ggml_format(info.type).dtype ? converted(tensor(name), dtype) : decoded(keeper_, raw(info), info, dtype, device);
}

}  // namespace cambium
