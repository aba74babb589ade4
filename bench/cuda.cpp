// LoRA training and greedy generation of a Llama of random weights on one device: tokens a second, model FLOP/s by formula, and the matrix product's own rate beside them, as one line of JSON.
//   build/bench/bench_cuda [--device cuda] [--size tiny|1b|8b] [--dtype bfloat16] [--batch 4] [--seq 1024] [--rank 8] [--steps 10] [--new-tokens 64] [--peak-tflops 0]
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "autograd/ops.h"
#include "kernels/kernels.h"
#include "nn/generation.h"
#include "nn/optim/adamw.h"
#include "nn/optim/clip.h"
#include "peft/peft_model.h"
#include "tensor/json.h"

using namespace cambium;

namespace {

struct Options {
  std::string device = "cuda", size = "1b", dtype = "bfloat16";
  std::int64_t batch = 4, seq = 1024, rank = 8, steps = 10, new_tokens = 64;
  double peak_tflops = 0;  // of the device by its data sheet, for the share; 0: none is given
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    check<ConfigError>(i + 1 < argc, "bench_cuda: ", name, " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--device") o.device = value;
    else if (name == "--size") o.size = value;
    else if (name == "--dtype") o.dtype = value;
    else if (name == "--batch") o.batch = std::stoll(value);
    else if (name == "--seq") o.seq = std::stoll(value);
    else if (name == "--rank") o.rank = std::stoll(value);
    else if (name == "--steps") o.steps = std::stoll(value);
    else if (name == "--new-tokens") o.new_tokens = std::stoll(value);
    else if (name == "--peak-tflops") o.peak_tflops = std::stod(value);
    else fail<ConfigError>("bench_cuda: option '", name, "' is not known: see the first lines of bench/cuda.cpp");
  }
  check<ConfigError>(o.batch > 0 && o.seq > 1 && o.rank > 0 && o.steps > 0 && o.new_tokens > 1, "bench_cuda: expected positive numbers");
  return o;
}

Json model_json(const Options& o) {
  Json config{{"model_type", "llama"}, {"architectures", {"LlamaForCausalLM"}}, {"hidden_act", "silu"}, {"rms_norm_eps", 1e-5}, {"rope_theta", 500000.0}, {"tie_word_embeddings", false}};
  const auto sizes = [&](std::int64_t vocabulary, std::int64_t hidden, std::int64_t inner, std::int64_t layers, std::int64_t heads, std::int64_t groups) {
    config.update(Json{{"vocab_size", vocabulary}, {"hidden_size", hidden}, {"intermediate_size", inner}, {"num_hidden_layers", layers}, {"num_attention_heads", heads}, {"num_key_value_heads", groups},
                       {"max_position_embeddings", std::max<std::int64_t>(o.seq + o.new_tokens, 2048)}});
  };
  if (o.size == "tiny") sizes(512, 64, 128, 2, 4, 2);
  else if (o.size == "1b") sizes(128256, 2048, 8192, 16, 32, 8);    // Llama 3.2 1B's sizes
  else if (o.size == "8b") sizes(128256, 4096, 14336, 32, 32, 8);   // Llama 3.1 8B's
  else fail<ConfigError>("bench_cuda: --size: expected tiny, 1b or 8b, found ", o.size);
  return config;
}

DType dtype_of_name(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    if (name_of(dtype) == name) return dtype;
  fail<ConfigError>("bench_cuda: --dtype: expected float32, bfloat16 or float16, found ", name);
}

/// Seconds that `run` takes on the device, once warm.
template <class F>
double timed(Device device, std::int64_t repeats, F&& run) {
  run();
  kernels::synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < repeats; ++i) run();
  kernels::synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / static_cast<double>(repeats);
}

/// FLOP/s of the product that the model spends most on, (tokens, hidden) x (hidden, inner), as the device's table does it: cuBLAS.
double product_rate(Device device, DType dtype, std::int64_t tokens, std::int64_t hidden, std::int64_t inner) {
  NoGrad no_grad;
  const Tensor x = random_normal({1, tokens, hidden}, RandomKey{1, 0}, 0.0, 1.0, dtype, device), w = random_normal({hidden, inner}, RandomKey{2, 0}, 0.0, 1.0, dtype, device);
  const Tensor y = empty({1, tokens, inner}, dtype, device);
  kernels::Context context{device};
  const double seconds = timed(device, 20, [&] { kernels::kernels_for(device).gemm(context, y.mutable_view(), x.view(), w.view(), {}); });
  return 2.0 * static_cast<double>(tokens) * static_cast<double>(hidden) * static_cast<double>(inner) / seconds;
}

}  // namespace

int main(int argc, char** argv) try {
  const Options o = parse(argc, argv);
  const Device device = parse_device(o.device);
  const DType dtype = dtype_of_name(o.dtype);
  const Json config = model_json(o);
  const auto model = model_from_config(config.dump(), Task::causal_lm, RandomKey{7, 0}, {.dtype = dtype, .device = device});
  const double weights = static_cast<double>(model->parameter_count()) - static_cast<double>(config.at("vocab_size").get<std::int64_t>() * config.at("hidden_size").get<std::int64_t>());
  PeftModel peft = get_peft_model(model, LoraConfig{.r = o.rank, .target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}});

  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < o.batch * o.seq; ++i) ids.push_back((i * 7919 + i / 13) % config.at("vocab_size").get<std::int64_t>());
  ModelInput input;
  input.input_ids = input.labels = from_vector(ids, {o.batch, o.seq});
  input.want_logits = false;
  std::vector<NamedParameter> trained;
  for (const auto& parameter : peft.named_parameters())
    if (parameter.second->tensor.requires_grad()) trained.push_back(parameter);
  AdamW optimizer(trained, AdamWConfig{});
  ForwardContext context;
  context.training = true;
  double loss = 0;
  kernels::reset_peak(device);
  const double step = timed(device, o.steps, [&] {
    const ModelOutput output = peft.forward(input, context);
    loss = output.loss.item();
    backward(output.loss);
    clip_grad_norm(trained, 1.0);
    optimizer.step();
    optimizer.zero_grad();
  });
  const std::int64_t peak = kernels::memory_statistics(device).peak_bytes;

  GenerationOptions generation;
  generation.max_new_tokens = o.new_tokens;
  generation.eos_token_ids = std::vector<std::int64_t>();
  const Tensor prompt = from_vector(std::vector<std::int64_t>(ids.begin(), ids.begin() + 16), {1, 16});
  const double generated = timed(device, 2, [&] { peft.generate(prompt, Tensor(), generation); });

  // Frozen weights need no gradient of their own: 2 FLOP forward and 2 backward for each weight and token; attention adds 4 T C forward and 8 backward for each token and layer, halved by the causal mask.
  const auto tokens = static_cast<double>(o.batch * o.seq), layers = config.at("num_hidden_layers").get<double>(), hidden = config.at("hidden_size").get<double>();
  const double flops = tokens * (4.0 * weights + layers * 6.0 * static_cast<double>(o.seq) * hidden), rate = flops / step;
  const double product = product_rate(device, dtype, o.batch * o.seq, config.at("hidden_size").get<std::int64_t>(), config.at("intermediate_size").get<std::int64_t>());
  Json line{{"device", describe_device(device)}, {"size", o.size}, {"dtype", o.dtype}, {"batch", o.batch}, {"seq", o.seq}, {"rank", o.rank}, {"step_s", step}, {"train_tokens_per_s", tokens / step},
            {"model_tflops", rate / 1e12}, {"product_tflops", product / 1e12}, {"share_of_product", rate / product}, {"peak_mib", peak >> 20}, {"generate_tokens_per_s", static_cast<double>(o.new_tokens) / generated}, {"loss", loss}};
  if (o.peak_tflops > 0) line["mfu"] = rate / 1e12 / o.peak_tflops;
  std::cout << line.dump() << std::endl;
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
