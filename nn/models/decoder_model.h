// DecoderModel: a decoder with the head of its task.
#pragma once

#include <functional>
#include <optional>

#include "nn/models/decoder.h"
#include "nn/models/registry.h"

namespace cambium {

/// One class of transformers, say GPT2LMHeadModel: the family's Decoder under the name that class has for it, and the head of its task.
class DecoderModel final : public PretrainedModel {
 public:
  using MakeDecoder = std::function<std::unique_ptr<Decoder>(Module& owner)>;
  /// All parameters are meta tensors of `dtype`, to be loaded or initialised.
  DecoderModel(const ModelClass& chosen, const MakeDecoder& make, DType dtype);

  std::string_view type_name() const override { return chosen_.architecture; }
  const ModelConfig& config() const override { return decoder_->config(); }
  const Decoder& decoder() const { return *decoder_; }
  Task task() const override { return chosen_.task; }
  bool is_causal() const override { return true; }
  std::string input_embedding_path() const override;
  std::string output_embedding_path() const override { return task() == Task::causal_lm ? head_->name() : ""; }
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const override;
  std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const override;

 private:
  void finish_language_model(const ModelInput& input, const Tensor& hidden, const ForwardContext& context, ModelOutput& out) const;
  void finish_other_task(const ModelInput& input, const Tensor& hidden, const ForwardContext& context, ModelOutput& out) const;

  const ModelClass& chosen_;
  std::optional<Child<Module>> backbone_;      ///< holds decoder_'s members, unless they are this model's own
  std::unique_ptr<Decoder> own_;
  const Decoder* decoder_ = nullptr;
  std::optional<Child<Layer>> dropout_, head_;
};

/// What every decoder reads alike.
void read_decoder(const ConfigReader& config, const std::string& json, DecoderConfig& out);

/// A model of family D of this configuration.
template <class D, class Config>
std::shared_ptr<PretrainedModel> make_decoder_model(const ModelClass& chosen, Config config, DType dtype) {
  return std::make_shared<DecoderModel>(chosen, [&](Module& owner) { return std::make_unique<D>(owner, std::move(config), dtype); }, dtype);
}

}  // namespace cambium
