// One LoRA training step on one repeated batch, of a Hugging Face folder or of two full-width layers of a large model: times, memory and losses as one line of JSON.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "autograd/ops.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/isa/gemm.h"
#include "kernels/device.h"
#include "kernels/parallel.h"
#include "nn/optim/adamw.h"
#include "peft/peft_model.h"

using namespace cambium;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Processor time of this process: what a step costs where other programs run beside it.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Seconds since the kernel started this process (to a hundredth: field 22 of /proc/self/stat counts ticks since boot).
double seconds_since_exec() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return 0;
  const char* at = text.c_str() + after_name + 1;
  for (int field = 3; field < 22; ++field) at = at ? std::strchr(at + 1, ' ') : nullptr;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const double started = at ? std::strtod(at, nullptr) / static_cast<double>(sysconf(_SC_CLK_TCK)) : 0.0;
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - started;
}

/// A line of /proc/self/status in MiB.
long status_mib(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) return std::lround(std::strtod(line.c_str() + std::strlen(key) + 1, nullptr) / 1024.0);
  return 0;
}

/// Rate of multiply-adds that stay in registers: shows whether the clock moved.
double probe_gflops() {
  float sink[16] = {};
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const double start = seconds(), work = kernels::cpu::isa().gemm->probe(20000, sink);
    best = std::max(best, work / (seconds() - start) / 1e9);
  }
  return best;
}

/// The same on `threads` threads at once, long enough that starting them does not count.
double probe_gflops(int threads) {
  std::vector<float> sinks(static_cast<std::size_t>(threads) * 64);
  std::vector<double> work(static_cast<std::size_t>(threads));
  kernels::set_threads(threads);
  const double start = seconds();
  kernels::parallel_for(threads, [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    work[at] = kernels::cpu::isa().gemm->probe(20'000'000, &sinks[at * 64]);
  });
  return std::accumulate(work.begin(), work.end(), 0.0) / (seconds() - start) / 1e9;
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// Ids in [5, vocab): splitmix64 of i, squared to favour small ids; the peer's script makes the same.
std::vector<std::int64_t> tokens(std::int64_t count, std::int64_t vocab, std::uint64_t seed = 0) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t z = ((seed << 32) + static_cast<std::uint64_t>(i) + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
    const std::uint64_t u = (z ^ z >> 31) >> 40;
    out.push_back(5 + static_cast<std::int64_t>((u * u >> 24) * static_cast<std::uint64_t>(vocab - 5) >> 24));
  }
  return out;
}

/// Two layers of models that are too large for a whole step here; a small vocabulary, so that the layers are what is measured.
const char* layers_config(const std::string& name) {
  if (name == "gptj") return R"({"model_type": "gptj", "vocab_size": 1024, "n_embd": 4096, "n_layer": 2, "n_head": 16, "n_positions": 2048, "rotary_dim": 64})";
  if (name == "falcon")
    return R"({"model_type": "falcon", "vocab_size": 1024, "hidden_size": 4544, "num_hidden_layers": 2, "num_attention_heads": 71, "multi_query": true,
      "parallel_attn": true, "bias": false, "alibi": false, "new_decoder_architecture": false})";
  return nullptr;
}

DType dtype_named(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    if (name_of(dtype) == name) return dtype;
  std::fprintf(stderr, "bench_lora_step: --dtype is float32, bfloat16 or float16\n");
  std::exit(2);
}

struct Options {
  std::string model, adapter, layers, save;
  std::optional<DType> dtype;
  bool checkpointing = false, gain = false;
  std::int64_t batch = 4, seq = 128, decoder_seq = 32;
  int warmup = 3, repeats = 7, threads = 1;
  double learning_rate = 1e-3;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--model-dir") o.model = value;
    else if (name == "--adapter-dir") o.adapter = value;
    else if (name == "--layers") o.layers = value;
    else if (name == "--save-dir") o.save = value;
    else if (name == "--dtype") o.dtype = dtype_named(value);
    else if (name == "--checkpointing") o.checkpointing = std::atoi(value) != 0;
    else if (name == "--batch") o.batch = std::atoll(value);
    else if (name == "--seq") o.seq = std::atoll(value);
    else if (name == "--decoder-seq") o.decoder_seq = std::atoll(value);
    else if (name == "--warmup") o.warmup = std::atoi(value);
    else if (name == "--repeats") o.repeats = std::atoi(value);
    else if (name == "--threads") o.threads = std::atoi(value);
    else if (name == "--gain") o.gain = std::atoi(value) != 0;
    else if (name == "--lr") o.learning_rate = std::atof(value);
    else o.model.clear(), o.layers.clear(), i = argc;
  }
  const bool source = o.layers.empty() ? !o.model.empty() && !o.adapter.empty() : o.model.empty() && layers_config(o.layers) != nullptr;
  if (argc % 2 == 0 || !source || o.batch < 1 || o.seq < 2 || o.decoder_seq < 1 || o.repeats < 1 || o.warmup < 0 || o.threads < (o.gain ? 2 : 1)) {
    std::fprintf(stderr, "usage: bench_lora_step (--model-dir FOLDER --adapter-dir FOLDER | --layers gptj|falcon [--save-dir FOLDER]) [--dtype float32|bfloat16|float16]\n"
                         "                       [--checkpointing 0|1] [--batch 4] [--seq 128] [--decoder-seq 32] [--warmup 3] [--repeats 7] [--threads 1] [--lr 1e-3]\n"
                         "                       [--gain 1: steps with one thread and with all in turn, beside what arithmetic in registers gains]\n");
    std::exit(2);
  }
  return o;
}

void print_list(const char* name, const std::vector<double>& values, const char* format) {
  std::printf("\"%s\": [", name);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) std::printf(", ");
    std::printf(format, values[i]);
  }
  std::printf("], ");
}

/// The peer's batch: labels are the tokens, for T5 tokens of another seed, for classification the row's number modulo 2.
ModelInput batch_for(const PretrainedModel& model, const Options& o) {
  const std::int64_t vocab = model.config().vocab_size;
  ModelInput input;
  input.input_ids = from_vector(tokens(o.batch * o.seq, vocab), {o.batch, o.seq});
  input.labels = input.input_ids;
  input.want_logits = false;
  if (model.task() == Task::seq2seq_lm) input.labels = from_vector(tokens(o.batch * o.decoder_seq, vocab, 1), {o.batch, o.decoder_seq});
  if (model.task() == Task::sequence_classification) {
    std::vector<std::int64_t> labels;
    for (std::int64_t row = 0; row < o.batch; ++row) labels.push_back(row % 2);
    input.labels = from_vector(labels, {o.batch});
  }
  return input;
}

PeftModel make_model(const Options& o) {
  if (!o.layers.empty()) {
    LoraConfig config;
    config.r = 8;
    config.lora_alpha = 16;
    config.init_lora_weights = false;  // B is not 0: the adapter's gradients are not, either
    return get_peft_model(AutoModelForCausalLM::from_config(layers_config(o.layers), RandomKey{1, 0}, {.dtype = o.dtype}), config, {.key = RandomKey{2, 0}});
  }
  AdapterLoadOptions load;
  load.is_trainable = true;
  return PeftModel::from_pretrained(load_pretrained(o.model, {}, {.dtype = o.dtype}), o.adapter, "default", load);
}

/// What several threads gain on a step, beside what they gain on arithmetic alone: medians of pairs taken in turn.
void print_gain(const Options& o, const std::function<double()>& step) {
  std::vector<double> one, all, arithmetic_one, arithmetic_all;
  for (int i = -o.warmup; i < o.repeats; ++i)
    for (const int threads : {1, o.threads}) {
      const double gflops = probe_gflops(threads), start = seconds();
      step();
      const double ms = 1e3 * (seconds() - start);
      if (i < 0) continue;
      (threads == 1 ? one : all).push_back(ms);
      (threads == 1 ? arithmetic_one : arithmetic_all).push_back(gflops);
    }
  const double gain = median_of(one) / median_of(all), arithmetic = median_of(arithmetic_all) / median_of(arithmetic_one);
  std::printf("{\"threads\": %d, \"step_ms\": [%.1f, %.1f], \"gflops\": [%.1f, %.1f], \"step_gain\": %.3f, \"arithmetic_gain\": %.3f, \"share\": %.3f}\n", o.threads, median_of(one), median_of(all),
              median_of(arithmetic_one), median_of(arithmetic_all), gain, arithmetic, gain / arithmetic);
}

void run(const Options& o) {
  kernels::set_threads(o.threads);
  PeftModel model = make_model(o);
  if (!o.save.empty()) {
    model.save_pretrained(o.save + "/adapter");
    save_pretrained(*model.unload(), o.save + "/model");
    return;
  }
  model.model().set_gradient_checkpointing(o.checkpointing);
  AdamWConfig config;
  config.learning_rate = o.learning_rate;
  AdamW optimizer(model.trainable_parameters(), config);
  const ModelInput input = batch_for(model.model(), o);
  ForwardContext context;
  context.training = true;
  const double ready = seconds_since_exec(), probe_before = probe_gflops();

  const auto step = [&] {
    const Tensor loss = model.forward(input, context).loss;
    backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    return loss.item();
  };
  if (o.gain) return print_gain(o, step);
  std::vector<double> steps, cpu_steps, losses;
  for (int i = 0; i < o.warmup + o.repeats; ++i) {
    const double start = seconds(), cpu_start = cpu_seconds();
    losses.push_back(step());
    steps.push_back(1e3 * (seconds() - start));
    cpu_steps.push_back(1e3 * (cpu_seconds() - cpu_start));
    std::fprintf(stderr, "step %d: loss %.6f, %.1f ms\n", i + 1, losses.back(), steps.back());
  }
  std::vector<double> timed(steps.begin() + o.warmup, steps.end());
  const double median = median_of(timed), fastest = *std::min_element(timed.begin(), timed.end());
  const std::int64_t count = o.batch * (o.seq + (model.model().task() == Task::seq2seq_lm ? o.decoder_seq : 0));
  const std::string_view dtype = name_of(model.model().named_parameters().front().second->tensor.dtype());
  std::printf("{\"peer\": \"cambium\", \"dtype\": \"%.*s\", \"peak_tensor_mb\": %lld, ", static_cast<int>(dtype.size()), dtype.data(),
              static_cast<long long>(kernels::memory_statistics(Device{}).peak_bytes >> 20));
  std::printf("\"batch\": %lld, \"seq\": %lld, \"threads\": %d, \"tokens\": %lld, \"trainable\": %lld, ", static_cast<long long>(o.batch),
              static_cast<long long>(o.seq), o.threads, static_cast<long long>(count), static_cast<long long>(model.trainable_parameter_count()));
  std::printf("\"tok_s\": %.1f, \"step_ms\": {\"median\": %.2f, \"min\": %.2f, \"n\": %zu}, ", 1e3 * static_cast<double>(count) / median, median, fastest, timed.size());
  print_list("steps", steps, "%.2f");
  print_list("cpu_steps", cpu_steps, "%.2f");
  print_list("losses", losses, "%.6f");
  std::printf("\"ready_s\": %.2f, \"memory_mb\": {\"VmHWM\": %ld, \"VmRSS\": %ld, \"RssAnon\": %ld}, \"probe_gflops\": [%.1f, %.1f]}\n", ready, status_mib("VmHWM"),
              status_mib("VmRSS"), status_mib("RssAnon"), probe_before, probe_gflops());
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  try {
    run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
