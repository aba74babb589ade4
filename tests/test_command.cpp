// The `cambium` command as a process: exit codes, one-line errors, JSON answers, a whole round of training, and a signal. CAMBIUM_TEST_DEVICE chooses another device than the CPU.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "nn/models/model.h"
#include "peft/peft_model.h"
#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

struct Outcome {
  int code = -1;
  std::string out, err;
};

Device test_device() {
  const char* device = std::getenv("CAMBIUM_TEST_DEVICE");
  return device == nullptr ? Device{} : parse_device(device);
}

/// Runs the command; sends SIGINT as soon as `interrupt_at` stands in what it writes to standard error.
Outcome run(const std::vector<std::string>& arguments, const std::string& interrupt_at = "") {
  const char* program = std::getenv("CAMBIUM_COMMAND");
  if (program == nullptr) throw std::runtime_error("CAMBIUM_COMMAND has to name the program to test");
  const TemporaryFolder folder;
  const std::string out_path = folder.file("out");
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) throw std::runtime_error("pipe");
  std::vector<std::string> texts = {program};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  static const std::set<std::string> computing{"train", "eval", "generate", "logits"};
  if (test_device() != Device{} && !arguments.empty() && computing.contains(arguments[0])) texts.insert(texts.end(), {"--device", std::getenv("CAMBIUM_TEST_DEVICE")});
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    const int out = open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, 1);
    dup2(pipe_ends[1], 2);
    close(pipe_ends[0]);
    execv(program, pointers.data());
    _exit(99);
  }
  close(pipe_ends[1]);
  Outcome outcome;
  bool sent = interrupt_at.empty();
  char block[4096];
  for (ssize_t count; (count = read(pipe_ends[0], block, sizeof block)) > 0;) {
    outcome.err.append(block, static_cast<std::size_t>(count));
    if (!sent && contains(outcome.err, interrupt_at)) {
      kill(child, SIGINT);
      sent = true;
    }
  }
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  outcome.out = read_all(out_path);
  return outcome;
}

/// The one line on standard error of a run that must end with `code` and print nothing else.
std::string error_line(const std::vector<std::string>& arguments, int code) {
  const Outcome outcome = run(arguments);
  CHECK(outcome.code == code);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.starts_with("cambium: "));
  CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
  return outcome.err;
}

Json last_line(const Outcome& outcome) {
  REQUIRE(outcome.code == 0);
  const std::string text = outcome.out.substr(0, outcome.out.size() - 1);
  return parse_json(text.substr(text.rfind('\n') + 1), "answer");
}

/// A model folder and a file of token ids.
struct Fixture {
  TemporaryFolder folder;
  std::string model = folder.file("model"), data;
  Fixture() {
    save_pretrained(*tiny_llama(), model);
    std::string rows;
    for (int i = 1; i < 9; ++i) rows += "{\"input_ids\": [1, " + std::to_string(i) + ", " + std::to_string(3 * i) + ", 7, " + std::to_string(i) + "]}\n";
    data = folder.write("data.jsonl", rows);
  }
};

}  // namespace

TEST_CASE("help, version, and what does not exist") {
  CHECK(run({"--help"}).code == 0);
  CHECK(run({"--version"}).code == 0);
  for (const char* command : {"train", "eval", "generate", "merge", "combine", "convert", "extract", "inspect", "tokenize", "logits", "devices"}) CHECK(run({command, "--help"}).code == 0);
  CHECK(run({"devices"}).code == 0);
  CHECK(contains(error_line({}, 2), "subcommand"));
  CHECK(contains(error_line({"trian"}, 2), "did you mean 'train'"));
  CHECK(contains(error_line({"train", "--modle", "x"}, 2), "did you mean '--model'"));
  CHECK(contains(error_line({"train", "--lora-alpa=3"}, 2), "did you mean '--lora-alpha'"));
  CHECK(contains(error_line({"train"}, 2), "--model"));
  for (const char* later : {"plan"}) CHECK(contains(error_line({later, "--whatever", "x"}, 2), "not in this version"));
}

TEST_CASE("options that cannot be used are errors, not ignored") {
  const Fixture f;
  const std::vector<std::string> train = {"train", "--model", f.model, "--data", f.data, "--out", f.folder.file("run")};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = train;
    all.insert(all.end(), more.begin(), more.end());
    return error_line(all, 2);
  };
  CHECK(contains(with({"--resume", "x"}), "--resume"));
  CHECK(contains(with({"--save-every", "5"}), "--save-every"));
  CHECK(contains(with({"--task", "causal-lm", "--head", "mean"}), "--head mean: a head of classes of texts, not of the task causal-lm"));
  CHECK(contains(with({"--head", "hf"}), "--head: a choice of the task seq-cls"));
  CHECK(contains(with({"--head", "median"}), "--head: expected hf or mean"));
  CHECK(contains(with({"--task", "poetry"}), "task: expected one of"));
  CHECK(contains(with({"--method", "magic"}), "--method: expected one of lora, ia3"));
  CHECK(contains(with({"--method", "full", "--r", "4"}), "--r: no option of --method full: it belongs to lora"));
  CHECK(contains(with({"--method", "ia3", "--lora-alpha", "4"}), "--lora-alpha: no option of --method ia3"));
  CHECK(contains(with({"--num-virtual-tokens", "4"}), "--num-virtual-tokens: no option of --method lora: it belongs to prompt-tuning, prefix-tuning, p-tuning"));
  CHECK(contains(with({"--method", "prompt-tuning"}), "num_virtual_tokens"));
  CHECK(contains(with({"--method", "prompt-tuning", "--num-virtual-tokens", "x"}), "--num-virtual-tokens: expected a whole number"));
  CHECK(contains(with({"--method", "prefix-tuning", "--num-virtual-tokens", "4", "--init-weights", "one"}), "init_weights"));
  CHECK(contains(with({"--method", "p-tuning", "--num-virtual-tokens", "4", "--encoder-reparameterization-type", "GRU"}), "GRU"));
  CHECK(contains(with({"--head-learning-rate", "1e-3"}), "--head-learning-rate: the task causal-lm"));
  CHECK(contains(with({"--labels", "a,b"}), "--labels: the task causal-lm"));
  CHECK(contains(with({"--max-target-length", "4"}), "--max-target-length: for the task seq2seq"));
  CHECK(contains(with({"--r", "x"}), "--r"));
  CHECK(contains(with({"--r", "0"}), "r: expected a positive integer"));
  CHECK(contains(with({"--target-modules", "nothing"}), "nothing"));
  CHECK(contains(with({"--dtype", "int8"}), "--dtype"));
  CHECK(contains(with({"--schedule", "x"}), "schedule"));
  CHECK(contains(with({"--batch-size", "0"}), "batch"));
  CHECK(contains(with({"--steps", "0"}), "--steps"));
  CHECK(contains(with({"--max-length", "65"}), "64 positions"));
  CHECK(contains(with({"--data-kind", "x"}), "data kind"));
  CHECK(contains(with({"--eval-data", f.data, "--eval-fraction", "0.1"}), "give one of them"));
  CHECK(contains(error_line({"train", "--model", f.model, "--data", f.folder.file("none.jsonl")}, 1), "none.jsonl"));
  CHECK(contains(error_line({"train", "--model", f.folder.file("none"), "--data", f.data}, 1), "none"));
  const std::string bad = f.folder.write("bad.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 99]}\n");
  CHECK(contains(error_line({"train", "--model", f.model, "--data", bad}, 1), "bad.jsonl:2: token id 99"));
  CHECK_FALSE(std::filesystem::exists(f.folder.file("run")));
}

TEST_CASE("train, eval, logits, merge, inspect") {
  const Fixture f;
  const std::string out = f.folder.file("run"), adapter = out + "/adapter";
  const Outcome trained = run({"train", "--model", f.model, "--data", f.data, "--out", out, "--steps", "6", "--batch-size", "4", "--learning-rate", "0.02", "--r", "4", "--lora-alpha", "8",
                               "--target-modules", "q_proj,v_proj", "--threads", "2", "--json"});
  const Json answer = last_line(trained);
  REQUIRE(answer["losses"].size() == 6);
  CHECK(answer["losses"][5].get<double>() < answer["losses"][0].get<double>());
  CHECK(answer["adapter"] == adapter);
  CHECK(contains(trained.err, "trainable params: "));
  for (const char* file : {"run.json", "metrics.jsonl", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}) CHECK(std::filesystem::exists(out + "/" + file));
  const Json config = read_json_file(adapter + "/adapter_config.json");
  CHECK(config["r"] == 4);
  CHECK(config["base_model_name_or_path"] == f.model);
  std::string metrics = read_all(out + "/metrics.jsonl");
  CHECK(std::count(metrics.begin(), metrics.end(), '\n') == 6);
  CHECK(contains(error_line({"train", "--model", f.model, "--data", f.data, "--out", out, "--quiet"}, 2), "holds a run already"));

  // The same from a configuration file, and bit for bit the same losses; the command line wins.
  const std::string file = f.folder.write("options.json", R"({"steps": 6, "batch_size": 4, "learning-rate": 0.02, "r": 7, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "quiet": true})");
  const Outcome again = run({"train", "--config", file, "--model", f.model, "--data", f.data, "--out", f.folder.file("again"), "--r", "4", "--threads", "1", "--json"});
  CHECK(last_line(again)["losses"] == answer["losses"]);
  CHECK(again.err.empty());
  CHECK(read_all(f.folder.file("again/adapter/adapter_model.safetensors")) == read_all(adapter + "/adapter_model.safetensors"));
  const std::string wrong = f.folder.write("wrong.json", R"({"lora_alhpa": 8})");
  CHECK(contains(error_line({"train", "--config", wrong, "--model", f.model, "--data", f.data}, 2), "did you mean 'lora-alpha'"));

  const Json base = last_line(run({"eval", "--model", f.model, "--data", f.data, "--json"}));
  const Json tuned = last_line(run({"eval", "--model", f.model, "--adapter", adapter, "--data", f.data, "--json"}));
  CHECK(tuned["loss"].get<double>() < base["loss"].get<double>());
  CHECK(tuned["perplexity"].get<double>() == doctest::Approx(std::exp(tuned["loss"].get<double>())));
  CHECK(tuned["tokens"] == 32);

  const std::string merged = f.folder.file("merged");
  CHECK(last_line(run({"merge", "--model", f.model, "--adapter", adapter, "--out", merged, "--json"}))["out"] == merged);
  CHECK(contains(error_line({"merge", "--model", f.model, "--adapter", adapter, "--out", merged}, 2), "exists"));
  CHECK(contains(error_line({"merge", "--model", f.model, "--out", f.folder.file("m2")}, 2), "--adapter"));
  CHECK(last_line(run({"eval", "--model", merged, "--data", f.data, "--json"}))["loss"].get<double>() == doctest::Approx(tuned["loss"].get<double>()).epsilon(1e-5));

  const std::string ids = f.folder.write("ids.json", R"({"input_ids": [[1, 5, 9], [2, 8, 30]]})");
  const auto logits = [&](std::vector<std::string> more) {
    std::vector<std::string> all = {"logits", "--model", f.model, "--ids", ids, "--out", f.folder.file("l.safetensors"), "--json"};
    all.insert(all.end(), more.begin(), more.end());
    CHECK(last_line(run(all))["shape"] == Json::array({2, 3, 40}));
    return SafetensorsFile(f.folder.file("l.safetensors")).tensor("logits").to_vector<float>();
  };
  ModelInput input;
  input.input_ids = from_vector(std::vector<std::int64_t>{1, 5, 9, 2, 8, 30}, {2, 3});
  const auto model = tiny_llama();
  model->to(test_device());
  CHECK(logits({}) == model->forward(input).logits.to_vector<float>());
  CHECK(logits({"--adapter", adapter + "=x"}) == PeftModel::from_pretrained(model, adapter).forward(input).logits.to_vector<float>());
  const std::string outside = f.folder.write("outside.json", R"({"input_ids": [[1, 40]]})");
  CHECK(contains(error_line({"logits", "--model", f.model, "--ids", outside, "--out", "x"}, 1), "token id 40"));

  CHECK(last_line(run({"inspect", adapter, "--json"}))["kind"] == "adapter");
  CHECK_FALSE(last_line(run({"inspect", adapter, "--spectrum", "--json"}))["spectrum"].empty());

  // Combined with itself half and half it is the same adapter; as GGUF and back, too.
  const std::string both = f.folder.file("both"), gguf = f.folder.file("adapter.gguf"), back = f.folder.file("back");
  const Json combined = last_line(run({"combine", "--adapter", adapter + "=a:0.5", "--adapter", adapter + "=b:0.5", "--out", both, "--json"}));
  CHECK(combined["largest_error"].get<double>() < 1e-6);
  CHECK(last_line(run({"convert", "--adapter", both, "--model", f.model, "--out", gguf, "--json"}))["out"] == gguf);
  CHECK(last_line(run({"convert", "--adapter", gguf, "--model", f.model, "--out", back, "--json"}))["out"] == back);
  CHECK(last_line(run({"inspect", gguf, "--spectrum", "--json"}))["kind"] == "gguf adapter");
  for (const std::string& same : {both, gguf, back})
    CHECK(last_line(run({"eval", "--model", f.model, "--adapter", same, "--data", f.data, "--json"}))["loss"].get<double>() == doctest::Approx(tuned["loss"].get<double>()).epsilon(1e-5));
  const Json extracted = last_line(run({"extract", "--model", f.model, "--tuned", merged, "--r", "4", "--out", f.folder.file("extracted"), "--json"}));
  CHECK(extracted["largest_error"].get<double>() < 1e-4);
  CHECK(extracted["left_over"].empty());
  CHECK(contains(error_line({"combine", "--adapter", adapter + "=a:half", "--out", f.folder.file("x")}, 2), "behind the last colon"));
  CHECK(contains(error_line({"combine", "--adapter", adapter, "--combination-type", "mean", "--out", f.folder.file("x")}, 2), "magnitude_prune"));
  CHECK(contains(error_line({"combine", "--adapter", adapter, "--out", both}, 2), "exists"));
  CHECK(contains(error_line({"convert", "--adapter", adapter, "--model", f.model, "--out", f.folder.file("x")}, 2), ".gguf"));
  CHECK(last_line(run({"inspect", merged, "--check-values", "--json"}))["kind"] == "model");
  CHECK(last_line(run({"inspect", out, "--json"}))["kind"] == "run");
  CHECK(error_line({"inspect", f.folder.file("nothing")}, 1).size() > 20);
}

TEST_CASE("a signal ends training after the step, and everything is saved") {
  const Fixture f;
  const std::string out = f.folder.file("run");
  const Outcome stopped = run({"train", "--model", f.model, "--data", f.data, "--out", out, "--steps", "100000000", "--batch-size", "2"}, "1/100000000");
  CHECK(stopped.code == 130);
  CHECK(contains(stopped.err, "stopped by a signal"));
  auto peft = PeftModel::from_pretrained(tiny_llama(), out + "/adapter");
  CHECK(peft.adapters().size() == 1);
  const std::string metrics = read_all(out + "/metrics.jsonl");
  CHECK(std::count(metrics.begin(), metrics.end(), '\n') >= 1);
}

namespace {

/// Models of each task in a folder, with rows of token ids that suit them.
struct TaskFolder {
  const char* task;
  std::string model, data;
};
std::vector<TaskFolder> task_folders(const TemporaryFolder& folder) {
  const std::string bert = R"({"model_type": "bert", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3, "id2label": {"0": "red", "1": "green", "2": "blue"},
    "label2id": {"red": 0, "green": 1, "blue": 2}, "pad_token_id": 0, "architectures": [")";
  const std::string t5 = R"({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 40,
    "dropout_rate": 0.0, "feed_forward_proj": "relu", "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1})";
  const auto save = [&](const char* name, const std::string& config, Task task) {
    const std::string path = folder.file(name);
    save_pretrained(*model_from_config(config, task, RandomKey{3}), path);
    return path;
  };
  const auto rows = [&](const char* name, const auto& line) {
    std::string text;
    for (int i = 0; i < 8; ++i) text += line(i) + "\n";
    return folder.write(name, text);
  };
  const auto ids = [](int i) { return "{\"input_ids\": [1, " + std::to_string(2 + i) + ", " + std::to_string(20 + i) + (i % 2 == 0 ? ", 9" : "") + ", 7]"; };
  std::vector<TaskFolder> out;
  const std::string llama = folder.file("llama");
  save_pretrained(*tiny_llama(), llama);
  out.push_back({"causal-lm", llama, rows("causal.jsonl", [&](int i) { return ids(i) + "}"; })});
  out.push_back({"seq2seq", save("t5", t5, Task::seq2seq_lm), rows("seq2seq.jsonl", [&](int i) { return ids(i) + ", \"labels\": [" + std::to_string(5 + i) + ", 8, 1]}"; })});
  out.push_back({"seq-cls", save("cls", bert + "BertForSequenceClassification\"]}", Task::sequence_classification), rows("cls.jsonl", [&](int i) { return ids(i) + ", \"labels\": " + std::to_string(i % 3) + "}"; })});
  out.push_back({"token-cls", save("tok", bert + "BertForTokenClassification\"]}", Task::token_classification),
                 rows("tok.jsonl", [&](int i) { return ids(i) + ", \"labels\": [-100, " + std::to_string(i % 3) + ", 2" + (i % 2 == 0 ? ", 1" : "") + ", -100]}"; })});
  out.push_back({"question-ans", save("qa", bert + "BertForQuestionAnswering\"]}", Task::question_answering), rows("qa.jsonl", [&](int i) { return ids(i) + ", \"start_positions\": 1, \"end_positions\": 2}"; })});
  return out;
}

}  // namespace

TEST_CASE("every method for every task: train, save, load, and measure the same") {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, std::vector<std::string>>> methods = {
      {"lora", {"--r", "4", "--learning-rate", "0.02"}},
      {"ia3", {"--learning-rate", "0.05"}},
      {"prompt-tuning", {"--num-virtual-tokens", "3", "--learning-rate", "0.1"}},
      {"prefix-tuning", {"--num-virtual-tokens", "3", "--learning-rate", "0.1"}},
      {"p-tuning", {"--num-virtual-tokens", "3", "--encoder-hidden-size", "8", "--learning-rate", "0.02"}},
      {"full", {"--learning-rate", "0.01"}}};
  for (const TaskFolder& f : task_folders(folder)) {
    for (const auto& entry : methods) {
      const std::string& method = entry.first;
      const std::vector<std::string>& more = entry.second;
      CAPTURE(f.task);
      CAPTURE(method);
      const std::string out = folder.file(std::string("run-") + f.task + "-" + method);
      std::vector<std::string> arguments = {"train", "--model", f.model, "--data", f.data, "--eval-data", f.data, "--out", out, "--method", method, "--steps", "6", "--batch-size", "4", "--quiet", "--threads", "1", "--json"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Json trained = last_line(run(arguments));
      CHECK(trained["losses"].size() == 6);
      CHECK(trained["eval"]["loss"].get<double>() < trained["eval_before"]["loss"].get<double>());
      CHECK(read_json_file(out + "/run.json")["task"] == f.task);
      const bool full = method == "full";
      std::vector<std::string> eval = {"eval", "--model", full ? out + "/model" : f.model, "--data", f.data, "--threads", "1", "--json"};
      if (!full) eval.insert(eval.end(), {"--adapter", out + "/adapter"});
      const Json measured = last_line(run(eval));
      CHECK(measured["loss"].get<double>() == doctest::Approx(trained["eval"]["loss"].get<double>()).epsilon(2e-5));
      for (const char* key : {"accuracy", "macro_f1", "confusion", "perplexity", "f1"})
        CHECK(measured.contains(key) == trained["eval"].contains(key));
      if (std::string(f.task).ends_with("cls")) CHECK(measured["label_names"] == Json::array({"red", "green", "blue"}));
    }
  }
}

TEST_CASE("classes on the mean of the tokens, from names in a table") {
  const TemporaryFolder folder;
  const std::vector<TaskFolder> all = task_folders(folder);
  const std::string out = folder.file("run");
  const Json trained = last_line(run({"train", "--model", all[2].model, "--task", "seq-cls", "--head", "mean", "--data", all[2].data, "--eval-data", all[2].data, "--out", out, "--steps", "8", "--batch-size", "4",
                                      "--learning-rate", "0.01", "--head-learning-rate", "0.05", "--quiet", "--threads", "1", "--json"}));
  CHECK(trained["eval"]["loss"].get<double>() < trained["eval_before"]["loss"].get<double>());
  for (const char* file : {"/adapter/mean_head.safetensors", "/adapter/label_names.json", "/adapter/adapter_config.json"}) CHECK(std::filesystem::exists(out + file));
  CHECK(read_json_file(out + "/adapter/adapter_config.json")["task_type"] == "FEATURE_EXTRACTION");
  const Outcome measured = run({"eval", "--model", all[2].model, "--adapter", out + "/adapter", "--data", all[2].data, "--threads", "1", "--json"});
  CHECK(last_line(measured)["loss"].get<double>() == doctest::Approx(trained["eval"]["loss"].get<double>()).epsilon(2e-5));
  CHECK(contains(measured.out, "precision  recall"));
  CHECK(contains(error_line({"eval", "--model", all[2].model, "--adapter", out + "/adapter", "--head", "hf", "--data", all[2].data}, 2), "--head hf"));
  const std::string unknown = folder.write("unknown.jsonl", "{\"input_ids\": [1, 2], \"labels\": \"pink\"}\n");
  CHECK(contains(error_line({"eval", "--model", all[2].model, "--adapter", out + "/adapter", "--data", unknown}, 1), "unknown label 'pink'"));
  CHECK(contains(error_line({"train", "--model", all[2].model, "--task", "feature", "--data", all[2].data}, 2), "features have no loss"));
  CHECK(contains(error_line({"train", "--model", all[0].model, "--packing", "--task", "seq-cls", "--data", all[2].data}, 2), "--packing: for the task causal-lm only"));
  CHECK(contains(error_line({"generate", "--model", all[2].model, "--prompt", "x"}, 2), "writes no text"));
  // An adapter is trained on with its own method and configuration.
  const Json again = last_line(run({"train", "--model", all[2].model, "--adapter", out + "/adapter", "--data", all[2].data, "--out", folder.file("on"), "--steps", "2", "--quiet", "--json"}));
  CHECK(again["losses"][0].get<double>() < trained["losses"][0].get<double>());
  CHECK(contains(error_line({"train", "--model", all[2].model, "--adapter", out + "/adapter", "--method", "ia3", "--data", all[2].data, "--out", folder.file("no")}, 2), "is lora"));
}

TEST_CASE("logits of every task") {
  const TemporaryFolder folder;
  for (const TaskFolder& f : task_folders(folder)) {
    CAPTURE(f.task);
    const bool seq2seq = std::string(f.task) == "seq2seq";
    const std::string ids = folder.write("ids.json", seq2seq ? R"({"input_ids": [[1, 5, 9], [2, 8, 30]], "decoder_input_ids": [[0, 4], [0, 6]]})" : R"({"input_ids": [[1, 5, 9], [2, 8, 30]], "attention_mask": [[1, 1, 1], [1, 1, 0]]})");
    const Json shape = last_line(run({"logits", "--model", f.model, "--ids", ids, "--out", folder.file("l.safetensors"), "--json"}))["shape"];
    const std::map<std::string, Json> expected = {{"causal-lm", {2, 3, 40}}, {"seq2seq", {2, 2, 40}}, {"seq-cls", {2, 3}}, {"token-cls", {2, 3, 3}}, {"question-ans", {2, 3}}};
    CHECK(shape == expected.at(f.task));
  }
}
