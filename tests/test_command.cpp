// The `cambium` command as a process: exit codes, one-line errors, JSON answers, a whole round of training, and a signal.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

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
  CHECK(contains(with({"--head", "mean"}), "--head"));
  CHECK(contains(with({"--task", "seq-cls"}), "--task"));
  CHECK(contains(with({"--method", "ia3"}), "--method"));
  CHECK(contains(with({"--method", "full", "--r", "4"}), "--method full"));
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
  CHECK(logits({}) == tiny_llama()->forward(input).logits.to_vector<float>());
  CHECK(logits({"--adapter", adapter + "=x"}) == PeftModel::from_pretrained(tiny_llama(), adapter).forward(input).logits.to_vector<float>());
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
