// Loading an adapter onto a Falcon and merging it away, as PEFT's page on tuners does it with falcon-40b: what is left is an ordinary model, and as fast as one.
// The Falcon is a small one with random weights, and so is the adapter.
#include <cmath>
#include <filesystem>
#include <iostream>

#include "tiny.h"

using namespace cambium;

namespace {
std::shared_ptr<PretrainedModel> small_falcon() {
  return AutoModelForCausalLM::from_config(R"({"model_type": "falcon", "architectures": ["FalconForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_kv_heads": 2, "new_decoder_architecture": true, "parallel_attn": true, "multi_query": false, "alibi": false, "bias": false, "vocab_size": 64, "layer_norm_epsilon": 1e-5,
    "attention_dropout": 0.0, "hidden_dropout": 0.0})", RandomKey{1});
}
}  // namespace

int main() {
  const std::string folder = (std::filesystem::temp_directory_path() / "falcon-adapter").string();
  LoraConfig random{.r = 4, .target_modules = {"query_key_value"}};
  random.init_lora_weights = false;  // B is not zero, so that the adapter does something
  get_peft_model(small_falcon(), random).save_pretrained(folder);

  auto model = PeftModel::from_pretrained(small_falcon(), folder);
  ModelInput input;
  input.input_ids = from_vector(std::vector<std::int64_t>{5, 8, 13, 21, 34}, {1, 5});
  NoGrad no_grad;
  const Tensor before = model.forward(input).logits;
  const auto merged = model.merge_and_unload();
  const Tensor after = merged->forward(input).logits;
  const double difference = max(abs(after - before)).item();
  std::cout << "the merged model differs by " << difference << '\n';
  std::filesystem::remove_all(folder);
  return difference < 1e-3 ? 0 : 1;
}
