// Parameters of adapters in a layer's tree, by adapter's name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace cambium {

/// A parameter that belongs to one adapter: shown in the tree as `NAME.weight` below `lora_A` and the like.
class AdapterWeight final : public Module {
 public:
  explicit AdapterWeight(Tensor value) { weight.set(std::move(value)); }
  std::string_view type_name() const override { return "AdapterWeight"; }
  Param weight{*this, "weight"}, bias{*this, "bias"};
};

/// Parameters by adapter's name, in the order they were added.
class AdapterWeights final : public Module {
 public:
  std::string_view type_name() const override { return "AdapterWeights"; }
  void add(const std::string& adapter, Tensor value, Tensor bias = {});
  void remove(const std::string& adapter);
  bool contains(const std::string& adapter) const { return find(adapter) != nullptr; }
  Param& at(const std::string& adapter) const;    ///< NameError
  Param& bias(const std::string& adapter) const;  ///< NameError; may hold no tensor

 private:
  AdapterWeight* find(const std::string& adapter) const;
  std::vector<std::unique_ptr<Child<AdapterWeight>>> slots_;
};

/// The same without a module in between: shown as `ia3_l.NAME`.
class AdapterParameters final : public Module {
 public:
  std::string_view type_name() const override { return "AdapterParameters"; }
  void add(const std::string& adapter, Tensor value);
  /// The same parameter as another one's: tied layers share it.
  void add_tied(const std::string& adapter, const Param& other);
  void remove(const std::string& adapter);
  bool contains(const std::string& adapter) const { return find(adapter) != nullptr; }
  Param& at(const std::string& adapter) const;  ///< NameError

 private:
  Param* find(const std::string& adapter) const;
  std::vector<std::unique_ptr<Param>> slots_;
};

}  // namespace cambium
