// Adapters of prompt methods: making, naming, saving them.
#include "peft/prompt_tuner.h"

#include <algorithm>
#include <array>

#include "tensor/json.h"

namespace cambium {

namespace {

/// Ids of TEXT: cut, or repeated whole and then cut, to `count`. The tokenizer's own special tokens belong to it.
std::vector<std::int64_t> text_ids(const PromptTuningConfig& c, std::int64_t count, const AdapterOptions& options) {
  std::vector<std::int64_t> ids = options.prompt_text_ids;
  if (ids.empty()) {
    check<ConfigError>(c.prompt_tuning_init_text.has_value(), "PromptTuningConfig: prompt_tuning_init TEXT needs prompt_tuning_init_text");
    if (options.tokenizer) {
      ids = options.tokenizer->encode(*c.prompt_tuning_init_text, true);
    } else {
      check<ConfigError>(c.tokenizer_name_or_path.has_value(), "PromptTuningConfig: prompt_tuning_init TEXT needs tokenizer_name_or_path");
      // Where a file comes from and which of two equal implementations reads it does not change the ids.
      constexpr std::array<std::string_view, 6> kLoadingOptions = {"trust_remote_code", "use_fast", "revision", "token", "cache_dir", "local_files_only"};
      if (c.tokenizer_kwargs) {
        const Json kwargs = parse_json(*c.tokenizer_kwargs, "tokenizer_kwargs");
        for (const auto& [key, value] : kwargs.items())
          check<ConfigError>(std::find(kLoadingOptions.begin(), kLoadingOptions.end(), key) != kLoadingOptions.end(), "PromptTuningConfig: tokenizer_kwargs: '", key,
                             "' is not supported: give the ids or a tokenizer made that way");
      }
      ids = Tokenizer::from_file(*c.tokenizer_name_or_path).encode(*c.prompt_tuning_init_text, true);
    }
  }
  check<ConfigError>(!ids.empty(), "PromptTuningConfig: prompt_tuning_init_text gives no tokens");
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(ids[static_cast<std::size_t>(i) % ids.size()]);
  return out;
}

/// `count` ids drawn uniformly, with replacement.
std::vector<std::int64_t> sampled_ids(std::int64_t count, std::int64_t vocabulary, RandomKey key) {
  const std::vector<double> draws = random_uniform({count}, key, 0.0, 1.0, DType::f64).to_vector<double>();
  std::vector<std::int64_t> out;
  for (const double draw : draws) out.push_back(std::min(static_cast<std::int64_t>(draw * static_cast<double>(vocabulary)), vocabulary - 1));
  return out;
}

}  // namespace

const PromptTuner::Encoders::Entry& PromptTuner::entry(const std::string& name) const {
  for (const auto& entry : prompt_encoder_->entries)
    if (entry.encoder->name() == name) return entry;
  fail<NameError>("no adapter '", name, "': there is ", listed(adapters()));
}

const VirtualTokens& PromptTuner::prompt_encoder(const std::string& name) const { return **entry(name).encoder; }

const Layer& PromptTuner::word_embedding() const {
  const auto* layer = dynamic_cast<const Layer*>(model->child(model->input_embedding_path()).module().get());
  check<ConfigError>(layer != nullptr, "prompt: the base model's '", model->input_embedding_path(), "' is no layer that embeds tokens");
  return *layer;
}

std::shared_ptr<VirtualTokens> PromptTuner::make_encoder(const PeftConfig& config, const PromptSizes& sizes, const AdapterOptions& options, RandomKey key) const {
  const bool inference = std::visit([](const auto& c) { return c.inference_mode; }, config);
  if (inference || (options.from_file && std::holds_alternative<PromptTuningConfig>(config))) return std::make_shared<VirtualTokens>(zeros({sizes.rows(), sizes.columns()}));
  if (const auto* c = std::get_if<PromptTuningConfig>(&config)) {
    if (c->prompt_tuning_init == PromptTuningInit::RANDOM) return std::make_shared<VirtualTokens>(sizes.rows(), sizes.columns(), key);
    NoGrad no_grad;
    const std::vector<std::int64_t> ids = c->prompt_tuning_init == PromptTuningInit::TEXT ? text_ids(*c, sizes.rows(), options)
                                                                                           : sampled_ids(sizes.rows(), model->config().vocab_size, key.fold("vocabulary"));
    return std::make_shared<VirtualTokens>(clone(to_dtype(word_embedding().forward(from_vector(ids, {sizes.rows()}, model->device()), {}), DType::f32)));
  }
  if (const auto* c = std::get_if<PrefixTuningConfig>(&config)) {
    const bool zero = c->init_weights.has_value();
    if (!c->prefix_projection) {
      if (zero) return std::make_shared<VirtualTokens>(zeros({sizes.rows(), sizes.columns()}));
      return std::make_shared<VirtualTokens>(sizes.rows(), sizes.columns(), key);
    }
    auto encoder = std::make_shared<PrefixEncoder>(sizes.rows(), sizes.width, sizes.hidden, sizes.columns(), key);
    if (zero)
      for (Param* parameter : {&encoder->transform->last().weight(), &encoder->transform->last().bias()}) parameter->set(zeros(parameter->get().shape()));
    return encoder;
  }
  const auto& c = std::get<PromptEncoderConfig>(config);
  return std::make_shared<PromptEncoder>(PromptEncoder::Options{sizes.rows(), sizes.columns(), sizes.hidden, c.encoder_reparameterization_type == PromptEncoderType::LSTM, c.encoder_num_layers,
                                                                c.encoder_dropout},
                                         key);
}

void PromptTuner::make_adapter(const std::string& name, PeftConfig& config, const AdapterOptions& options) {
  std::vector<std::string> notes;
  const PromptSizes sizes = complete_prompt_config(config, *model, notes);
  for (std::string& note : notes) warn(std::move(note));
  std::shared_ptr<VirtualTokens> encoder = make_encoder(config, sizes, options, options.key.fold(name));
  encoder->to(model->device());
  prompt_encoder_->entries.push_back({std::make_unique<Child<VirtualTokens>>(*prompt_encoder_, name, std::move(encoder)), sizes});
}

void PromptTuner::strip(const std::string& name) {
  std::erase_if(prompt_encoder_->entries, [&](const auto& entry) { return entry.encoder->name() == name; });
}

void PromptTuner::check_activation(const std::vector<std::string>& names) const {
  check<StateError>(names.size() <= 1, "set_adapter: prompts cannot be added up: activate one of ", listed(names));
}

std::vector<NamedParameter> PromptTuner::trained_parameters(const std::string& name) const { return (*entry(name).encoder)->named_parameters(); }

Tensor PromptTuner::prompt_embeddings(const std::string& name) const {
  NoGrad no_grad;
  return contiguous(detach(prompt_encoder(name).forward({})));
}

std::vector<NamedParameter> PromptTuner::adapter_state(const std::string& name) const {
  std::vector<NamedParameter> out;
  const VirtualTokens& encoder = prompt_encoder(name);
  if (encoder.is_flat()) out.emplace_back("prompt_embeddings", encoder.embedding->weight.slot());
  for (auto& entry : saved_module_state(name)) out.push_back(std::move(entry));
  return out;
}

std::vector<NamedTensor> PromptTuner::adapter_tensors(const std::string& name) const {
  std::vector<NamedTensor> out{{"prompt_embeddings", prompt_embeddings(name)}};
  for (const auto& [key, slot] : saved_module_state(name)) out.emplace_back(key, contiguous(detach(slot->tensor)));
  return out;
}

std::vector<NamedParameter> PromptTuner::encoder_state(const std::string& name) const {
  const bool inference = std::visit([](const auto& c) { return c.inference_mode; }, config(name));
  return inference ? std::vector<NamedParameter>{} : (*entry(name).encoder)->named_parameters();
}

}  // namespace cambium
