// ModulesToSave: a module of the base that is trained in full, as a copy per adapter beside the untouched original.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace cambium {

class ModulesToSave final : public LinearLike {
 public:
  explicit ModulesToSave(std::shared_ptr<Layer> original) { original_module.set(std::move(original)); }
  std::string_view type_name() const override { return "ModulesToSaveWrapper"; }

  Child<Layer> original_module{*this, "original_module"};

  /// A copy of the original for this adapter; 16-bit parameters are raised to float32 unless `keep_dtype`.
  void add_adapter(const std::string& name, bool keep_dtype);
  void delete_adapter(const std::string& name);
  bool has_adapter(const std::string& name) const { return find(name) != nullptr; }
  bool empty() const { return modules_to_save_->slots.empty(); }
  std::shared_ptr<Layer> copy_of(const std::string& name) const;
  /// At most one of the names may have a copy here (StateError).
  void set_active(const std::vector<std::string>& names);
  void set_enabled(bool enabled) { enabled_ = enabled; }
  /// What is to stand in the tree when adapters are taken out: the active copy, or the original.
  std::shared_ptr<Layer> active_module() const;
  std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const;

  /// A float32 copy in a 16-bit model computes in float32 and gives the base's type back.
  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  Tensor forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const override;
  std::int64_t in_features() const override { return matrix().in_features(); }
  std::int64_t out_features() const override { return matrix().out_features(); }
  bool weight_is_transposed() const override { return matrix().weight_is_transposed(); }
  Param& weight() override { return matrix().weight(); }
  Param& bias() override { return matrix().bias(); }

 private:
  class Copies final : public Module {
   public:
    std::string_view type_name() const override { return "ModuleDict"; }
    std::vector<std::unique_ptr<Child<Layer>>> slots;
  };
  Child<Layer>* find(const std::string& name) const;
  const Layer& chosen(const ForwardContext& context) const;
  LinearLike& matrix() const;

  Child<Copies> modules_to_save_{*this, "modules_to_save", std::make_shared<Copies>()};
  std::vector<std::string> active_;
  bool enabled_ = true;
};

}  // namespace cambium
