// PromptTuner: prompt tuning, P-tuning and prefix tuning, whose adapters stand before the text and leave the base's layers as they are.
#pragma once

#include <memory>

#include "peft/prompt_encoder.h"
#include "peft/prompt_sizes.h"
#include "peft/tuner.h"

namespace cambium {

class PromptTuner final : public Tuner {
 public:
  using Tuner::Tuner;
  std::string_view type_name() const override { return "PromptLearningModel"; }

  /// With the active adapter (or the one that the context names; none: the base model). Prompts: a causal model computes them once for all rows, as a Past; others get
  /// them before each row's embeddings. Logits and hidden states then have N more leading positions, as in PEFT, but for packed rows, whose positions stay as they are; the
  /// first label of a row is predicted by the prompt's end. position_ids are dropped. Prefixes: keys and values before those of every layer; positions count them.
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const override;
  std::vector<std::vector<std::int64_t>> generate(const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options = {},
                                                  const ForwardContext& context = {}) const override;

  const VirtualTokens& prompt_encoder(const std::string& name) const;  ///< NameError
  /// What the adapter's file holds: the encoder's result outside training, (N submodules, C) or (N, 2 L D), float32, without a record.
  Tensor prompt_embeddings(const std::string& name) const;

  /// "prompt_embeddings" of an adapter without network, and trained heads.
  std::vector<NamedParameter> adapter_state(const std::string& name) const override;
  std::vector<NamedTensor> adapter_tensors(const std::string& name) const override;
  /// The encoder's parameters while it can be trained; loaded ones hold its result only.
  std::vector<NamedParameter> encoder_state(const std::string& name) const override;
  bool is_prompt_learning() const override { return true; }
  std::string_view key_prefix() const override { return "base_model."; }

 protected:
  void make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) override;
  void strip(const std::string& name) override;
  /// One at a time.
  void check_activation(const std::vector<std::string>& names) const override;
  std::vector<NamedParameter> trained_parameters(const std::string& name) const override;

 private:
  class Encoders final : public Module {
   public:
    std::string_view type_name() const override { return "ModuleDict"; }
    struct Entry {
      std::unique_ptr<Child<VirtualTokens>> encoder;
      PromptSizes sizes;
    };
    std::vector<Entry> entries;
  };
  const Encoders::Entry& entry(const std::string& name) const;
  const Encoders::Entry* chosen(const ForwardContext& context) const;
  std::shared_ptr<VirtualTokens> make_encoder(const PeftConfig& config, const PromptSizes& sizes, const AdapterOptions& options, RandomKey key) const;
  const Layer& word_embedding() const;

  /// The encoder's rows for one call, in the base's dtype: (N, C) of a prompt, (N, 2 L D) of a prefix.
  Tensor virtual_rows(const Encoders::Entry& adapter, const ForwardContext& context) const;
  Past prefix_past(const Encoders::Entry& adapter, const ForwardContext& context) const;
  ModelOutput forward_prefix(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const;
  ModelOutput forward_shared(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const;
  /// The input of a model that is not causal, with the prompt before each row.
  ModelInput prepended(const Encoders::Entry& adapter, const ModelInput& input, const ForwardContext& context) const;

  Child<Encoders> prompt_encoder_{*this, "prompt_encoder", std::make_shared<Encoders>()};
};

}  // namespace cambium
