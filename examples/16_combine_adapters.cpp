// Adapter algebra: two adapters of one model combined, cut, subtracted, mixed in one batch, and merged into files.
#include <cmath>
#include <filesystem>
#include <iostream>

#include "cambium.h"

using namespace cambium;

namespace {

double largest(const Tensor& x) { return max(abs(x)).item(); }

}  // namespace

int main() {
  NoGrad no_grad;
  const auto folder = std::filesystem::temp_directory_path() / "cambium-example-5";
  std::filesystem::remove_all(folder);
  const auto inside = [&](const char* name) { return (folder / name).string(); };

  // A small model with random weights stands for one that was pretrained.
  const auto make_base = [] {
    return AutoModelForCausalLM::from_config(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false})",
                                             RandomKey{1});
  };
  save_pretrained(*make_base(), inside("base"));
  PeftModel peft = get_peft_model(make_base(), LoraConfig{.r = 4, .target_modules = {"q_proj", "v_proj"}, .lora_alpha = 8}, {.adapter_name = "german"});
  peft.add_adapter("poems", LoraConfig{.r = 8, .target_modules = {"v_proj", "down_proj"}, .lora_alpha = 8});
  for (const std::string& name : peft.adapters())  // as if they had been trained
    for (const auto& [key, slot] : peft.base_model->adapter_state(name)) slot->tensor = random_normal(slot->tensor.shape(), RandomKey{2}.fold(key).fold(name), 0.0, 0.1);

  // cat is the exact sum, svd the closest one of a chosen rank.
  peft.add_weighted_adapter({"german", "poems"}, {0.7, 0.3}, "exact", "cat");
  const CombinationReport report = peft.add_weighted_adapter({"german", "poems"}, {0.7, 0.3}, "small", CombineOptions{.svd_rank = 6});
  std::cout << "rank " << std::get<LoraConfig>(peft.peft_config("exact")).r << " exactly, rank " << report.rank << " with an error of at most " << report.largest_error() << " of a delta's norm\n";

  // Rows of one batch with different adapters.
  ModelInput input;
  input.input_ids = random_integers({3, 8}, RandomKey{3}, 0, 100);
  ForwardContext mixed;
  mixed.adapter_names = {"german", "poems", "__base__"};
  const Tensor logits = peft.forward(input, mixed).logits;
  peft.set_adapter("poems");
  const double row = largest(slice(peft.forward(input).logits, 0, 1, 2) - slice(logits, 0, 1, 2));
  std::cout << "the second row is what its adapter alone gives: largest difference " << row << "\n";

  // Adapters are files, and so is what is made of them; the model is merged tensor by tensor.
  peft.save_pretrained(folder.string(), {"exact", "german"});
  const LoraAdapter difference = subtract_adapters(read_lora_adapter(inside("exact")), read_lora_adapter(inside("german")));
  write_lora_adapter(resize_adapter(difference, {.energy = 0.95}), inside("difference"));
  merge_model_files(inside("base"), {inside("exact")}, inside("merged"));
  peft.set_adapter("exact");
  const double merged = largest(AutoModelForCausalLM::from_pretrained(inside("merged"))->forward(input).logits - peft.forward(input).logits);
  std::cout << "the merged model's logits: largest difference " << merged << "\n";
  std::filesystem::remove_all(folder);
  return row < 1e-4 && merged < 1e-3 ? 0 : 1;
}
