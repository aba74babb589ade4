// The record: how an op tells, under its forward computation, what the gradient of each of its inputs is.
#pragma once

#include <concepts>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/grad_mode.h"
#include "tensor/tensor.h"

namespace cambium {

/// Which inputs of a joint gradient are asked for, in the order they were given.
class Needed {
 public:
  explicit Needed(const std::vector<bool>& asked) : asked_(&asked) {}
  bool operator[](std::size_t i) const { return (*asked_)[i]; }

 private:
  const std::vector<bool>* asked_;
};

/// A tensor kept for the backward pass, with the version of its storage. All that a recorded op retains is greppable as `saved(`.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor) : tensor_(tensor), version_(tensor.defined() ? tensor.storage()->version() : 0) {}
  /// The tensor; StateError naming op and input when it was changed in place since. Undefined if an undefined one was saved.
  const Tensor& get() const;

 private:
  Tensor tensor_;
  std::uint32_t version_ = 0;
};
inline Saved saved(const Tensor& tensor) { return Saved(tensor); }

/// One recorded op: its inputs that need a gradient, and the functions that give it. Made by record(); ops never see it.
class Node {
 public:
  /// Gradients of some inputs from the gradient of the output. `output` is defined only for functions that asked for it.
  using Function = std::function<void(const Tensor& g, const Tensor& output, Needed needed, std::span<Tensor> results)>;
  struct Input {
    std::shared_ptr<Node> node;  ///< the op that made it, or
    Tensor leaf;                 ///< the leaf itself
    Shape shape;
    DType dtype;
    std::size_t position;        ///< its place among all that the op listed, for messages
  };
  struct Group {  ///< inputs [first, first + count) share one function; `positions` are their places in the list of `width` inputs that the op gave
    std::size_t first = 0, count = 0, width = 0;
    std::vector<std::size_t> positions;
    bool wants_output = false;
    Function function;
  };

  std::string_view name;
  std::uint64_t sequence = 0;  ///< order of creation
  std::vector<Input> inputs;
  std::vector<Group> groups;
  Shape shape;  ///< of the output
  DType dtype = DType::f32;
  bool freed = false;
  // The output's storage, not its tensor: a tensor would hold this node and the node the tensor.
  std::shared_ptr<Storage> output_storage;
  Layout output_layout;
  std::uint32_t output_version = 0;

  ~Node();
  /// Lets go of everything kept for the backward pass.
  void free() noexcept;
  Tensor output() const;
};

/// Builds the node of one op. `.wrt(x, f)` does nothing when recording is off or x needs no gradient: f dies there with everything it
/// captured, so next to a frozen weight nothing is kept and nothing is computed.
///
///     return record("mul", out)
///         .wrt(a, [b = saved(b)](const Tensor& g) { return mul(g, b.get()); })
///         .wrt(b, [a = saved(a)](const Tensor& g) { return mul(g, a.get()); });
///
/// f takes `(g)` or `(g, out)`; never capture the output. It returns the gradient with the shape and dtype of x, or an undefined tensor for zero.
/// The joint form `.wrt({x, y}, f)` is for inputs that share work: f takes `(g, Needed)` or `(g, out, Needed)` and returns std::vector<Tensor>,
/// one per listed input; those not needed may stay undefined. Undefined inputs in the list are allowed (an absent bias) and never needed.
class Record {
 public:
  Record(std::string_view name, Tensor out) : name_(name), out_(std::move(out)) {}

  template <class F>
  Record&& wrt(const Tensor& x, F&& f) && {
    if (!needs(x)) {
      ++listed_;
      return std::move(*this);
    }
    constexpr bool wants_output = std::invocable<F&, const Tensor&, const Tensor&>;
    add(std::span(&x, 1), wants_output, [f = std::forward<F>(f)](const Tensor& g, [[maybe_unused]] const Tensor& out, Needed, std::span<Tensor> results) {
      if constexpr (wants_output) results[0] = f(g, out);
      else results[0] = f(g);
    });
    ++listed_;
    return std::move(*this);
  }

  template <class F>
  Record&& wrt(std::initializer_list<Tensor> xs, F&& f) && {
    return std::move(*this).wrt(std::span(xs.begin(), xs.size()), std::forward<F>(f));
  }

  template <class F>
  Record&& wrt(std::span<const Tensor> xs, F&& f) && {
    bool any = false;
    for (const Tensor& x : xs) any = any || needs(x);
    if (!any) {
      listed_ += xs.size();
      return std::move(*this);
    }
    constexpr bool wants_output = std::invocable<F&, const Tensor&, const Tensor&, Needed>;
    add(xs, wants_output, [f = std::forward<F>(f)](const Tensor& g, [[maybe_unused]] const Tensor& out, Needed needed, std::span<Tensor> results) {
      std::vector<Tensor> grads;
      if constexpr (wants_output) grads = f(g, out, needed);
      else grads = f(g, needed);
      for (std::size_t i = 0; i < grads.size() && i < results.size(); ++i) results[i] = std::move(grads[i]);
    });
    listed_ += xs.size();
    return std::move(*this);
  }

  operator Tensor() && { return std::move(*this).finish(); }

 private:
  static bool needs(const Tensor& x) { return grad_enabled() && x.defined() && (x.requires_grad() || !x.is_leaf()); }
  void add(std::span<const Tensor> xs, bool wants_output, Node::Function function);
  Tensor finish() &&;

  std::string_view name_;
  Tensor out_;
  std::shared_ptr<Node> node_;
  std::size_t listed_ = 0;  // inputs seen so far
};

/// Starts the record of op `name` (a literal: it is not copied) whose result is `out`, a tensor nothing else refers to.
inline Record record(std::string_view name, Tensor out) { return Record(name, std::move(out)); }

/// Whether a gradient would flow into x if an op used it now. For ops that choose between ways to compute.
inline bool needs_grad(const Tensor& x) { return grad_enabled() && x.defined() && (x.requires_grad() || !x.is_leaf()); }

}  // namespace cambium
