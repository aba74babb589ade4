// Trained rows in tables and heads.
#include "peft/trainable_tokens.h"

#include <algorithm>
#include <unordered_map>

namespace cambium {

void TrainableTokens::add_adapter(const std::string& name, const std::vector<std::int64_t>& tokens, bool keep_dtype) {
  NoGrad no_grad;
  const std::int64_t rows = is_embedding() ? in_features() : out_features();
  for (const std::int64_t token : tokens)
    check<ConfigError>(token >= 0 && token < rows, path(), ": trainable_token_indices: expected tokens below ", rows, ", found ", token);
  register_adapter(name);
  tokens_[name] = tokens;
  if (table_) {
    trainable_tokens_delta->add_tied(name, table_->trainable_tokens_delta->at(name));
    return;
  }
  if (weight().get().is_meta()) {
    trainable_tokens_delta->add(name, meta({static_cast<std::int64_t>(tokens.size()), is_embedding() ? out_features() : in_features()}, adapter_dtype(keep_dtype)));
    return;
  }
  const Tensor list = from_vector(tokens, {static_cast<std::int64_t>(tokens.size())}, weight().get().device());
  const bool by_column = !is_embedding() && weight_is_transposed();
  const Tensor now = index_select(detach(unmerged_weight()), by_column ? 1 : 0, list);
  trainable_tokens_delta->add(name, to_dtype(by_column ? contiguous(transpose(now)) : now, adapter_dtype(keep_dtype)));
}

void TrainableTokens::delete_adapter(const std::string& name) {
  AdapterLayer::delete_adapter(name);
  trainable_tokens_delta->remove(name);
  tokens_.erase(name);
}

std::vector<NamedParameter> TrainableTokens::adapter_parameters(const std::string& adapter) const {
  if (table_) return {};  // they are the table's
  return {{"token_adapter.trainable_tokens_delta", trainable_tokens_delta->at(adapter).slot()}};
}

void TrainableTokens::check_disjoint(const std::vector<std::string>& names) const {
  std::unordered_map<std::int64_t, const std::string*> owners;
  for (const std::string& name : names) {
    const auto found = tokens_.find(name);
    if (found == tokens_.end()) continue;
    for (const std::int64_t token : found->second) {
      const auto [owner, is_new] = owners.emplace(token, &name);
      check<StateError>(is_new, path(), ": adapters '", *owner->second, "' and '", name, "' both train token ", token, ": they cannot be used together");
    }
  }
}

void TrainableTokens::merge(const std::vector<std::string>& names, bool safe) {
  if (table_) return;  // its weight is the table's
  std::vector<std::string> all = merged_adapters();
  all.insert(all.end(), names.begin(), names.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  check_disjoint(all);
  AdapterLayer::merge(names, safe);
}

void TrainableTokens::unmerge() {
  if (!table_) AdapterLayer::unmerge();
}

Tensor TrainableTokens::forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const {
  check_disjoint(names);
  std::vector<std::int64_t> all;
  std::vector<Tensor> parts;
  for (const std::string& name : names) {
    all.insert(all.end(), tokens_.at(name).begin(), tokens_.at(name).end());
    parts.push_back(trainable_tokens_delta->at(name));
  }
  const Tensor rows = parts.size() == 1 ? parts.front() : cat(parts, 0);
  const Device device = weight().get().device();
  const Tensor list = from_vector(all, {static_cast<std::int64_t>(all.size())}, device);
  if (!is_embedding()) {
    // The rows are the base's plus their difference from them: an update of rank k whose B picks the tokens.
    const Tensor base = detach(index_select(weight(), weight_is_transposed() ? 1 : 0, list));
    const Tensor difference = sub(rows, to_dtype(weight_is_transposed() ? transpose(base) : base, rows.dtype()));
    const LoraTerm term{difference, contiguous(transpose(one_hot(list, out_features(), rows.dtype())))};
    return linear_base().forward_with_lora(x, {&term, 1}, context);
  }
  std::unordered_map<std::int64_t, std::int64_t> places;
  for (std::size_t i = 0; i < all.size(); ++i) places.emplace(all[i], static_cast<std::int64_t>(i));
  std::vector<std::int64_t> index = x.to_vector<std::int64_t>();
  std::vector<std::uint8_t> chosen(index.size());
  for (std::size_t i = 0; i < index.size(); ++i) {
    const auto found = places.find(index[i]);
    chosen[i] = found != places.end();
    index[i] = chosen[i] ? found->second : 0;
  }
  std::optional<std::int64_t> padding;
  if (padding_index() && places.contains(*padding_index())) padding = places.at(*padding_index());
  const Tensor mask = unsqueeze(to_dtype(from_vector(chosen, x.shape(), device), DType::boolean), -1);
  const Tensor plain = base_layer->forward(x, context);
  return where(mask, to_dtype(embedding(from_vector(index, x.shape(), device), rows, padding), plain.dtype()), plain);
}

void TrainableTokens::merge_into(const std::string& adapter, Tensor& weight_now, Tensor&) const {
  const bool by_column = !is_embedding() && weight_is_transposed();
  const Tensor rows = trainable_tokens_delta->at(adapter);
  const std::vector<std::int64_t>& list = tokens_.at(adapter);
  Tensor out = clone(weight_now);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Tensor row = slice(detach(rows), 0, static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1);
    copy_into(slice(out, by_column ? 1 : 0, list[i], list[i] + 1), by_column ? transpose(row) : row);
  }
  weight_now = out;
}

}  // namespace cambium
