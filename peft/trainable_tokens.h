// Rows of a table of token embeddings that are replaced by trained ones, and the same in what is tied to the table.
#pragma once

#include <map>

#include "peft/adapter_layer.h"

namespace cambium {

/// Around an embedding: ids of chosen tokens give the adapter's rows. Around a matrix, such as a head: their outputs come from those rows. A layer whose weight is the table's own
/// ("tied") shares the rows and the merging of the layer around the table.
class TrainableTokens final : public AdapterLayer {
 public:
  explicit TrainableTokens(std::shared_ptr<Layer> base, std::shared_ptr<TrainableTokens> table = nullptr) : AdapterLayer(std::move(base)), table_(std::move(table)) {}
  std::string_view type_name() const override { return "TrainableTokensLayer"; }

  /// (k, width): replacement rows in the order of the tokens, not differences.
  Child<AdapterParameters> trainable_tokens_delta{*this, "trainable_tokens_delta", std::make_shared<AdapterParameters>()};

  /// The rows start as the table's; ConfigError for a token that it does not have. Of a tied layer: the table's adapter of that name.
  void add_adapter(const std::string& name, const std::vector<std::int64_t>& tokens, bool keep_dtype);
  void delete_adapter(const std::string& name) override;
  bool is_tied() const { return table_ != nullptr; }
  const std::vector<std::int64_t>& tokens(const std::string& adapter) const { return tokens_.at(adapter); }
  /// StateError when two of these adapters have a token in common.
  void check_disjoint(const std::vector<std::string>& names) const;
  std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const override;

  bool merged() const override { return table_ ? table_->merged() : AdapterLayer::merged(); }
  void merge(const std::vector<std::string>& names, bool safe) override;
  void unmerge() override;
  const Tensor& unmerged_weight() const override { return table_ ? table_->unmerged_weight() : AdapterLayer::unmerged_weight(); }

 protected:
  Tensor forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const override;
  void merge_into(const std::string& adapter, Tensor& weight, Tensor& bias) const override;

 private:
  std::shared_ptr<TrainableTokens> table_;
  std::map<std::string, std::vector<std::int64_t>> tokens_;
};

}  // namespace cambium
