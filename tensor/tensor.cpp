// Tensor: access to elements, the slot of the graph, and makers of leaves.
#include "tensor/tensor.h"

#include "kernels/kernels.h"

namespace cambium {

namespace {

std::size_t bytes_for(const Shape& shape, DType dtype) { return static_cast<std::size_t>(shape.count() * item_size(dtype)); }

}  // namespace

// Bodies and nodes hold each other alive in chains as long as a program; letting one go must not recurse along it.
void detail::release(std::shared_ptr<Node>&& node) noexcept {
  thread_local std::vector<std::shared_ptr<Node>>* releasing = nullptr;
  if (releasing != nullptr) {
    releasing->push_back(std::move(node));
    return;
  }
  std::vector<std::shared_ptr<Node>> queue;
  releasing = &queue;
  queue.push_back(std::move(node));
  while (!queue.empty()) {
    std::shared_ptr<Node> next = std::move(queue.back());
    queue.pop_back();
    next.reset();
  }
  releasing = nullptr;
}

Tensor::Body::~Body() {
  if (node) detail::release(std::move(node));
}

Tensor::Tensor(std::shared_ptr<Storage> storage, Layout layout, DType dtype) : body_(std::make_shared<Body>()) {
  body_->storage = std::move(storage);
  body_->layout = layout;
  body_->dtype = dtype;
}

void Tensor::fail_undefined() { fail<StateError>("an undefined tensor has no shape, no elements and no gradient"); }

std::int64_t Tensor::size(int dim) const { return shape()[normalize_dim(dim, rank(), "size")]; }

kernels::Strided Tensor::view() const {
  check<StateError>(!is_meta(), "a meta tensor of shape ", shape(), " has no elements to compute with");
  kernels::Strided out;
  const Layout& from = layout();
  out.dtype = dtype();
  out.rank = rank();
  // A tensor without elements still needs an address, since null means "absent" to a kernel.
  static std::byte nothing[64];
  void* base = storage()->data();
  out.data = base == nullptr ? static_cast<void*>(nothing) : static_cast<std::byte*>(base) + from.offset * item_size(dtype());
  for (int i = 0; i < rank(); ++i) {
    out.shape[i] = from.shape[i];
    out.strides[i] = from.strides[static_cast<std::size_t>(i)];
  }
  return out;
}

kernels::Strided Tensor::mutable_view() const {
  storage()->begin_write();
  return view();
}

void* Tensor::checked_data(DType expected) const {
  check<DTypeError>(dtype() == expected, "data: expected ", expected, ", the tensor is ", dtype());
  check<DeviceError>(device().type == DeviceType::cpu, "data: the tensor is on ", device(), ": copy it to the CPU first");
  check<StateError>(is_contiguous(), "data: the tensor of shape ", shape(), " is not contiguous: use contiguous() first");
  return view().data;
}

Tensor detail::on_host(const Tensor& x) {
  if (x.device().type == DeviceType::cpu) return x;
  const DType dtype = x.dtype();
  if (const std::byte* beside = x.storage()->host_copy()) return Tensor(Storage::mapped(x.storage(), beside, x.storage()->bytes()), x.layout(), dtype);
  Tensor dense = x;
  if (!x.is_contiguous()) {
    dense = empty_like(x);
    kernels::Context context{x.device()};
    kernels::kernels_for(x.device()).copy(context, dense.view(), x.view());
  }
  const Tensor out = empty(x.shape(), dtype);
  kernels::copy_bytes(Device{}, out.storage()->data(), x.device(), dense.view().data, bytes_for(x.shape(), dtype));
  return out;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = detail::on_host(*this);
  const kernels::Strided v = host.view();
  const std::int64_t n = count();
  std::vector<T> out(static_cast<std::size_t>(n));
  visit_all(dtype(), [&]<class From>(TypeTag<From>) {
    const From* data = v.as<From>();
    const bool dense = v.contiguous();
    for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = convert<T>(data[dense ? i : kernels::offset_of(v, i)]);
  });
  return out;
}
template std::vector<double> Tensor::to_vector() const;
template std::vector<float> Tensor::to_vector() const;
template std::vector<std::int64_t> Tensor::to_vector() const;
template std::vector<std::int32_t> Tensor::to_vector() const;
template std::vector<std::uint8_t> Tensor::to_vector() const;

double Tensor::item() const {
  check<ShapeError>(count() == 1, "item: expected one element, found shape ", shape());
  return to_vector<double>().front();
}

const Tensor& Tensor::set_requires_grad(bool value) const {
  check<StateError>(is_leaf(), "set_requires_grad: the tensor is the result of a recorded op: use detach() first");
  check<DTypeError>(!value || is_float(dtype()), "set_requires_grad: only floating tensors have gradients, this one is ", dtype());
  body().requires_grad = value;
  return *this;
}

void Tensor::set_grad(const Tensor& grad) const {
  check<ShapeError>(grad.shape() == shape(), "set_grad: the gradient has shape ", grad.shape(), ", the tensor ", shape());
  check<DTypeError>(grad.dtype() == dtype(), "set_grad: the gradient is ", grad.dtype(), ", the tensor ", dtype());
  body().grad = grad.body_;
}

Tensor empty(const Shape& shape, DType dtype, Device device) {
  return Tensor(Storage::allocate(device, bytes_for(shape, dtype)), Layout::contiguous(shape), dtype);
}

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor out = empty(shape, dtype, device);
  kernels::Context context{device};
  kernels::kernels_for(device).fill(context, out.view(), value);
  return out;
}

Tensor zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0.0, dtype, device); }
Tensor ones(const Shape& shape, DType dtype, Device device) { return full(shape, 1.0, dtype, device); }
Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }
Tensor scalar(double value, DType dtype, Device device) { return full({}, value, dtype, device); }

Tensor meta(const Shape& shape, DType dtype) {
  return Tensor(Storage::meta(bytes_for(shape, dtype)), Layout::contiguous(shape), dtype);
}

Tensor arange(std::int64_t count, DType dtype, Device device) {
  Tensor out = empty({count}, dtype, device);
  kernels::Context context{device};
  kernels::kernels_for(device).arange(context, out.view(), 0.0, 1.0);
  return out;
}

template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape, Device device) {
  check<ShapeError>(static_cast<std::int64_t>(values.size()) == shape.count(), "from_vector: ", values.size(), " values for shape ", shape);
  Tensor out = empty(shape, dtype_of<T>, device);
  kernels::copy_bytes(device, out.storage()->data(), Device{}, values.data(), values.size() * sizeof(T));
  if (device.type != DeviceType::cpu && !is_float(out.dtype())) out.storage()->keep_host_copy(values.data());
  return out;
}
template Tensor from_vector(const std::vector<double>&, const Shape&, Device);
template Tensor from_vector(const std::vector<float>&, const Shape&, Device);
template Tensor from_vector(const std::vector<std::int64_t>&, const Shape&, Device);
template Tensor from_vector(const std::vector<std::int32_t>&, const Shape&, Device);
template Tensor from_vector(const std::vector<std::int8_t>&, const Shape&, Device);
template Tensor from_vector(const std::vector<std::uint8_t>&, const Shape&, Device);

// The one element type that std::vector does not store as an array.
template <>
Tensor from_vector(const std::vector<bool>& values, const Shape& shape, Device device) {
  Tensor bytes = from_vector(std::vector<std::uint8_t>(values.begin(), values.end()), shape, device);
  return Tensor(bytes.storage(), bytes.layout(), DType::boolean);
}

std::ostream& operator<<(std::ostream& stream, const Tensor& tensor) {
  if (!tensor.defined()) return stream << "undefined tensor";
  stream << tensor.dtype() << ' ' << tensor.shape() << " on " << tensor.device();
  if (tensor.is_meta() || tensor.device().type != DeviceType::cpu) return stream;
  stream << ':';
  const kernels::Strided v = tensor.view();
  const std::int64_t n = tensor.count(), shown = n < 16 ? n : 16;
  visit_all(tensor.dtype(), [&]<class T>(TypeTag<T>) {
    for (std::int64_t i = 0; i < shown; ++i) stream << ' ' << convert<double>(v.as<T>()[kernels::offset_of(v, i)]);
  });
  return stream << (shown < n ? " …" : "");
}

}  // namespace cambium
