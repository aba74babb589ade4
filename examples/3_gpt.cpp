// A GPT trained from scratch on text, byte by byte: the model is Cambium's own GPT-2, small.
//   3_gpt [text file] [steps]
#include <fstream>
#include <iostream>
#include <sstream>

#include "cambium.h"

using namespace cambium;

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "examples/data/dictionary.txt";
  const int steps = argc > 2 ? std::stoi(argv[2]) : 400;
  std::ifstream file(path, std::ios::binary);
  check<FileError>(file.good(), "cannot open ", path);
  std::stringstream all;
  all << file.rdbuf();
  const std::string text = all.str();

  const auto model = AutoModelForCausalLM::from_config(R"({"model_type": "gpt2", "vocab_size": 256, "n_positions": 64, "n_embd": 96, "n_layer": 3, "n_head": 4,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 10, "eos_token_id": 10})", RandomKey{1});
  model->set_requires_grad(true);
  std::cout << model->parameter_count() << " parameters, " << text.size() << " bytes of text\n";

  constexpr std::int64_t kRows = 16, kLength = 64;
  const std::int64_t last = static_cast<std::int64_t>(text.size()) - kLength;
  check<FileError>(last > 0, path, ": too short");
  AdamW optimizer(model->named_parameters(), {.learning_rate = 2e-3, .weight_decay = 0.01});
  const Schedule schedule = cosine_schedule(steps / 20, steps);
  double first = 0, loss_now = 0;
  for (int step = 0; step < steps; ++step) {
    const std::vector<std::int64_t> starts = random_integers({kRows}, RandomKey{2}.fold(static_cast<std::uint64_t>(step)), 0, last).to_vector<std::int64_t>();
    std::vector<std::int64_t> ids;
    for (const std::int64_t start : starts)
      for (std::int64_t t = 0; t < kLength; ++t) ids.push_back(static_cast<unsigned char>(text[static_cast<std::size_t>(start + t)]));
    ModelInput input;
    input.input_ids = input.labels = from_vector(ids, {kRows, kLength});  // the model shifts the labels by one
    input.want_logits = false;
    const ModelOutput output = model->forward(input, {.training = true});
    optimizer.zero_grad();
    backward(output.loss);
    clip_grad_norm(optimizer.parameters(), 1.0);
    optimizer.set_learning_rate_factor(schedule(step));
    optimizer.step();
    loss_now = output.loss.item();
    if (step == 0) first = loss_now;
    if (step % 50 == 0 || step + 1 == steps) std::cout << "step " << step << "  loss " << loss_now << std::endl;
  }
  model->set_requires_grad(false);
  GenerationOptions options;
  options.max_new_tokens = 48;
  options.sampling.do_sample = true;
  options.sampling.temperature = 0.7;
  options.eos_token_ids = std::vector<std::int64_t>{};
  std::vector<std::int64_t> prompt;
  for (const char c : std::string("LOVE, n. ")) prompt.push_back(static_cast<unsigned char>(c));
  std::cout << "LOVE, n. ";
  for (const std::int64_t id : generate(*model, prompt, options)) std::cout << static_cast<char>(id);
  std::cout << "\n";
  return loss_now < first ? 0 : 1;
}
