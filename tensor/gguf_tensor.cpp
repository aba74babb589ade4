// Tensors of GGUF files: shared with the mapped file where the elements are ours, else turned into floats.
#include <cstring>

#include "kernels/cpu/dequantize.h"
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

}  // namespace

Shape GgufTensorInfo::gguf_shape() const {
  std::vector<std::int64_t> sizes(shape.begin(), shape.end());
  return Shape(std::vector<std::int64_t>(sizes.rbegin(), sizes.rend()));
}

Tensor GgufFile::tensor(std::string_view name) const {
  const GgufTensorInfo& info = this->info(name);
  const GgmlFormat& format = ggml_format(info.type);
  check<DTypeError>(format.dtype || format.dequantizes, path(), ": tensor ", quote_for_message(name), ": elements of type ", info.type,
                    " are not supported: use F32, F16, BF16, Q8_0, Q4_0 to Q5_1 or Q2_K to Q6_K");
  const std::span<const std::byte> bytes = raw(info);
  if (!format.dtype) {
    Tensor out = empty(info.shape, DType::f32);
    kernels::cpu::dequantize(info.type, bytes.data(), out.count(), out.mutable_data<float>());
    return out;
  }
  const Layout layout = Layout::contiguous(info.shape);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (address % static_cast<std::uintptr_t>(item_size(*format.dtype)) == 0) {
    return Tensor(Storage::mapped(keeper_, bytes.data(), bytes.size()), layout, *format.dtype);
  }
  auto storage = Storage::allocate({}, bytes.size());
  std::memcpy(storage->data(), bytes.data(), bytes.size());
  return Tensor(std::move(storage), layout, *format.dtype);
}

Tensor GgufFile::tensor(std::string_view name, DType dtype) const {
  const Tensor own = tensor(name);
  const bool possible = is_float(own.dtype()) && (dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16);
  check<DTypeError>(own.dtype() == dtype || possible, path(), ": tensor ", quote_for_message(name), ": ", info(name).type, " cannot be read as ", dtype);
  return converted(own, dtype);
}

}  // namespace cambium
