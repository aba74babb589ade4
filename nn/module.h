// Module: a tree of named members that register themselves. The member is the slot: what the tree shows is what forward calls.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "nn/forward_context.h"
#include "tensor/tensor.h"

namespace cambium {

class Module;
class ChildSlot;

namespace detail {
void leave_slot(Module& module, const ChildSlot& slot);
}

/// The content of a parameter member, shared by tied weights and optimizers, so that a replaced tensor is seen by all of them.
struct ParameterSlot {
  Tensor tensor;  ///< undefined: the parameter is absent (a layer without bias)
};
using NamedParameter = std::pair<std::string, std::shared_ptr<ParameterSlot>>;
using NamedTensor = std::pair<std::string, Tensor>;

/// A trainable member: `Param weight{*this, "weight"}`. Names have no dots. Neither copyable nor movable.
class Param {
 public:
  Param(Module& owner, std::string name);
  ~Param();
  Param(const Param&) = delete;
  Param& operator=(const Param&) = delete;

  const Tensor& get() const { return slot_->tensor; }
  operator const Tensor&() const { return slot_->tensor; }
  bool defined() const { return slot_->tensor.defined(); }
  void set(Tensor tensor) { slot_->tensor = std::move(tensor); }
  /// From now on both are one parameter: one tensor, one entry in the state dict (under the name that comes first), one step of the optimizer.
  void tie(const Param& other) { slot_ = other.slot_; }
  const std::shared_ptr<ParameterSlot>& slot() const { return slot_; }
  const std::string& name() const { return name_; }

 private:
  Module& owner_;
  std::string name_;
  std::shared_ptr<ParameterSlot> slot_ = std::make_shared<ParameterSlot>();
};

/// A tensor that belongs to the module's state but is not trained. Non-persistent ones stay out of the state dict.
class Buffer {
 public:
  Buffer(Module& owner, std::string name, bool persistent = true);
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const Tensor& get() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  void set(Tensor tensor) { tensor_ = std::move(tensor); }
  const std::string& name() const { return name_; }
  bool persistent() const { return persistent_; }

 private:
  std::string name_;
  Tensor tensor_;
  bool persistent_;
};

/// A member that holds a module; replacing what it holds is replacing what forward calls.
class ChildSlot {
 public:
  ChildSlot(Module& owner, std::string name);
  virtual ~ChildSlot();
  ChildSlot(const ChildSlot&) = delete;
  ChildSlot& operator=(const ChildSlot&) = delete;

  const std::string& name() const { return name_; }
  Module& owner() const { return owner_; }
  std::string path() const;  ///< from the root: "model.layers.1.self_attn.q_proj"
  virtual std::shared_ptr<Module> module() const = 0;
  /// Puts another module here; NameError naming path and both types when the slot cannot hold it.
  virtual void replace(std::shared_ptr<Module> module) = 0;

 protected:
  void adopt(Module* module);

 private:
  Module& owner_;
  std::string name_;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// "Linear", "Conv1D", "LlamaAttention": the name that messages and `inspect` show.
  virtual std::string_view type_name() const = 0;
  /// A module of the same kind with its own copies of all tensors. StateError for kinds that do not support it.
  virtual std::shared_ptr<Module> copy() const { fail<StateError>("copy: a ", type_name(), " cannot be copied"); }

  const std::vector<Param*>& own_parameters() const { return parameters_; }
  const std::vector<Buffer*>& own_buffers() const { return buffers_; }
  const std::vector<ChildSlot*>& children() const { return children_; }
  Module* parent() const { return slot_ == nullptr ? nullptr : &slot_->owner(); }
  /// Dotted name from the root of the tree this module is in now; empty for the root.
  std::string path() const;

  /// The slot with a dotted path below this module; NameError naming what is missing, where, and what is there.
  ChildSlot& child(std::string_view path) const;
  /// Visits this module ("" as its path) and all below it, parents first, in order of declaration.
  void visit(const std::function<void(const std::string& path, Module& module)>& visitor);
  void visit_slots(const std::function<void(const std::string& path, ChildSlot& slot)>& visitor);

  /// All defined parameters in order of declaration; tied ones once, under their first name.
  std::vector<NamedParameter> named_parameters() const;
  /// Parameters and persistent buffers.
  std::vector<NamedTensor> state_dict() const;
  /// Every name must be there and every tensor used, with equal shapes: else NameError or ShapeError listing the first ten of missing, unexpected and
  /// mismatched, and nothing is changed. Dtypes of the given tensors are kept. Tied parameters may appear under any of their names.
  void load_state_dict(const std::vector<NamedTensor>& tensors);
  std::int64_t parameter_count() const;
  /// For all parameters whose full name matches the regular expression (PCRE2, whole name); returns how many. NameError when none does.
  int set_requires_grad(const std::string& pattern, bool value);
  void set_requires_grad(bool value);
  /// Converts all floating parameters and buffers.
  void to(DType dtype);
  /// Moves everything to a device: parameters with their gradients, buffers, and what modules keep besides. Tied parameters stay tied, shapes without values stay
  /// what they are. Optimizers and caches are made afterwards.
  void to(Device device);
  /// Of the first parameter; the CPU if there is none.
  Device device() const;
  /// DeviceError naming the first parameter that is elsewhere than the one before it. Models say so when an op has refused tensors of two devices, which it knows by their part only.
  void check_one_device(std::string_view what) const;

 protected:
  /// For modules that keep tensors which are neither parameters nor buffers: moves them.
  virtual void move_kept(Device) {}

 private:
  friend class Param;
  friend class Buffer;
  friend class ChildSlot;
  friend void detail::leave_slot(Module& module, const ChildSlot& slot);
  std::vector<Param*> parameters_;
  std::vector<Buffer*> buffers_;
  std::vector<ChildSlot*> children_;
  ChildSlot* slot_ = nullptr;  ///< where this module hangs; null for a root
};

/// A member that holds a T: `Child<Layer> q_proj{*this, "q_proj"}`; set it in the constructor.
template <class T>
class Child final : public ChildSlot {
 public:
  Child(Module& owner, std::string name, std::shared_ptr<T> module = nullptr) : ChildSlot(owner, std::move(name)) {
    if (module) set(std::move(module));
  }
  ~Child() override {
    if (module_) detail::leave_slot(*module_, *this);
  }
  void set(std::shared_ptr<T> module) {
    if (module_) detail::leave_slot(*module_, *this);
    module_ = std::move(module);
    adopt(module_.get());
  }
  const std::shared_ptr<T>& get() const { return module_; }
  T* operator->() const { return module_.get(); }
  T& operator*() const { return *module_; }
  std::shared_ptr<Module> module() const override { return module_; }
  void replace(std::shared_ptr<Module> module) override {
    std::shared_ptr<T> typed = std::dynamic_pointer_cast<T>(module);
    if (!typed) fail<NameError>("replace: ", path(), " holds a ", module_ ? module_->type_name() : "module", " and cannot hold a ", module ? module->type_name() : "null module");
    set(std::move(typed));
  }

 private:
  std::shared_ptr<T> module_;
};

/// Modules named "0", "1", …
template <class T>
class ModuleList final : public Module {
 public:
  std::string_view type_name() const override { return "ModuleList"; }
  void append(std::shared_ptr<T> module) {
    slots_.push_back(std::make_unique<Child<T>>(*this, std::to_string(slots_.size()), std::move(module)));
  }
  std::size_t size() const { return slots_.size(); }
  T& operator[](std::size_t i) const { return **slots_[i]; }

 private:
  std::vector<std::unique_ptr<Child<T>>> slots_;
};

/// One tensor in, one out: what adapters wrap. Forward reads the module's state and never changes it.
class Layer : public Module {
 public:
  virtual Tensor forward(const Tensor& x, const ForwardContext& context) const = 0;
  /// Mean cross-entropy of forward(hidden) (R, V) against targets (R), never whole where the layer knows how (linear_cross_entropy); `count` is what the sum is
  /// divided by. The one way to fuse head and loss: a parent that read this layer's weight would silently skip an adapter on it.
  virtual Tensor forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const;
};

/// A layer that multiplies by a matrix: what LoRA and IA3 know how to adapt.
class LinearLike : public Layer {
 public:
  virtual std::int64_t in_features() const = 0;
  virtual std::int64_t out_features() const = 0;
  /// Whether the weight is stored (in, out), as GPT-2's Conv1D does, instead of (out, in). PEFT calls it fan_in_fan_out.
  virtual bool weight_is_transposed() const = 0;
  virtual Param& weight() = 0;
  virtual Param& bias() = 0;  ///< may hold no tensor
  /// forward(x) + sum of the terms' scaling B A dropout(x). A plain layer does it in one op; the default adds to whatever forward() gives.
  virtual Tensor forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext& context) const;
  const Param& weight() const { return const_cast<LinearLike*>(this)->weight(); }
  const Param& bias() const { return const_cast<LinearLike*>(this)->bias(); }
};

}  // namespace cambium
