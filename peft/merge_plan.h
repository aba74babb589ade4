// Which tensors of a model's files the tensors of adapters change. Internal: not installed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "peft/merge_source.h"

namespace cambium {

class MergePlan {
 public:
  explicit MergePlan(const MergeSource& source) : source_(source) {}
  /// A PEFT folder or a GGUF adapter; every tensor of it finds its place, or NameError.
  void add_adapter(const std::string& path);

  bool changes(std::size_t item) const { return edits_.contains(item); }
  bool replaces(std::size_t item) const { return replaced_.contains(item); }
  TensorEdit edit(std::size_t item) const;
  /// Tensors that the model did not have: heads that are not tied any more, heads of classifiers.
  struct Added { std::string name; Tensor tensor; bool unties = false; };
  const std::vector<Added>& added() const { return added_; }

 private:
  using Change = std::function<void(TensorEdit&)>;
  void add_lora(const LoraAdapter& adapter, const Json& config);
  void add_ia3(const std::string& folder);
  void add_other(const std::string& key, const Tensor& tensor, const Json& config, const std::string& where);
  std::size_t weight_of(const std::string& path, const std::string& where) const;
  void change(std::size_t item, Change change);

  const MergeSource& source_;
  std::map<std::size_t, std::vector<Change>> edits_;  // made when they are needed: an adapter's tensors stay in its mapped file
  std::map<std::size_t, bool> replaced_;
  std::vector<Added> added_;
};

}  // namespace cambium
