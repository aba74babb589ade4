// Tensor: a cheap handle to one shared body of storage, layout, element type and a slot for the graph.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/layout.h"
#include "tensor/storage.h"

namespace cambium {

class Node;  // autograd/record.h

namespace detail {
/// Lets go of a node; what it alone held is let go afterwards in a loop, not by recursion.
void release(std::shared_ptr<Node>&& node) noexcept;
}  // namespace detail

/// Copying a Tensor shares its body: what is set through one handle (`set_requires_grad`) is seen through all.
/// Nothing in this header makes a new tensor from an old one: that is always a public op of autograd/ops.h, which keeps the graph.
class Tensor {
 public:
  Tensor() = default;  ///< undefined: no body; asking it for anything is a StateError
  Tensor(std::shared_ptr<Storage> storage, Layout layout, DType dtype);

  bool defined() const { return body_ != nullptr; }
  explicit operator bool() const { return defined(); }
  bool same_body(const Tensor& other) const { return body_ == other.body_; }
  const void* id() const { return body_.get(); }

  const Shape& shape() const { return body().layout.shape; }
  std::int64_t size(int dim) const;  ///< negative counts from the end; ShapeError
  int rank() const { return shape().rank(); }
  std::int64_t count() const { return shape().count(); }
  DType dtype() const { return body().dtype; }
  Device device() const { return body().storage->device(); }
  const Layout& layout() const { return body().layout; }
  const std::shared_ptr<Storage>& storage() const { return body().storage; }
  bool is_contiguous() const { return layout().is_contiguous(); }
  bool is_meta() const { return storage()->kind() == Storage::Kind::meta; }

  /// For kernels that read.
  kernels::Strided view() const;
  /// For kernels that write into this tensor after its making: counts a new version; StateError for a mapped file.
  kernels::Strided mutable_view() const;

  /// Pointer to contiguous elements on the CPU. DTypeError, StateError when not contiguous or not on the CPU.
  template <class T> const T* data() const { return static_cast<const T*>(checked_data(dtype_of<T>)); }
  template <class T> T* mutable_data() const { storage()->begin_write(); return static_cast<T*>(checked_data(dtype_of<T>)); }
  /// The elements in row-major order, converted to T. From another device they are copied, unless they lie on the host as well (Storage::host_copy).
  template <class T> std::vector<T> to_vector() const;
  /// The value of a tensor with one element. ShapeError for any other.
  double item() const;

  // The slot of the graph. A leaf is a tensor that no recorded op made.
  bool requires_grad() const { return body().requires_grad; }
  /// Float leaves only (StateError, DTypeError). Returns *this for chaining.
  const Tensor& set_requires_grad(bool value) const;
  bool is_leaf() const { return body().node == nullptr; }
  /// Gradient accumulated by backward(); undefined before, and after reset_grad().
  Tensor grad() const { return body().grad ? Tensor(body().grad) : Tensor(); }
  void set_grad(const Tensor& grad) const;
  void reset_grad() const { body().grad.reset(); }
  const std::shared_ptr<Node>& node() const { return body().node; }

 private:
  friend class Record;
  friend class Engine;
  struct Body {
    std::shared_ptr<Storage> storage;
    Layout layout;
    DType dtype = DType::f32;
    bool requires_grad = false;
    std::shared_ptr<Node> node;
    std::shared_ptr<Body> grad;
    ~Body();
  };
  explicit Tensor(std::shared_ptr<Body> body) : body_(std::move(body)) {}
  void* checked_data(DType expected) const;
  Body& body() const {
    if (body_ == nullptr) [[unlikely]] fail_undefined();
    return *body_;
  }
  [[noreturn]] static void fail_undefined();

  std::shared_ptr<Body> body_;
};

// Makers of leaves.
Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = {});
Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {});
Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = {});
Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = {});
Tensor empty_like(const Tensor& x);
Tensor zeros_like(const Tensor& x);
Tensor meta(const Shape& shape, DType dtype);  ///< shape without memory
Tensor arange(std::int64_t count, DType dtype = DType::i64, Device device = {});
/// Copies `values`; the count must equal that of `shape` (ShapeError). Of integers on another device a copy stays on the host.
template <class T> Tensor from_vector(const std::vector<T>& values, const Shape& shape, Device device = {});
Tensor scalar(double value, DType dtype = DType::f32, Device device = {});

namespace detail {
/// The elements in host memory, without the graph, for readers outside of ops: x itself, what lies beside it (Storage::host_copy), or a copy.
Tensor on_host(const Tensor& x);
}  // namespace detail

/// "float32 [2, 3] on cpu: [[0.5, …" for people; long tensors are cut.
std::ostream& operator<<(std::ostream& stream, const Tensor& tensor);

}  // namespace cambium
