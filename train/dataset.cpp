// Reading data files line by line.
#include "train/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numeric>

#include "nn/text/chat_template.h"
#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "train/shuffle.h"

namespace cambium {

namespace {

constexpr std::array<std::string_view, 6> kKinds = {"auto", "text", "completion", "instruct", "chat", "tokens"};
constexpr std::int64_t kIgnore = -100;

/// One file being read: what every line needs, and where we are for messages.
class LineReader {
 public:
  LineReader(std::string path, const Tokenizer* tokenizer, const DataOptions& options) : path_(std::move(path)), tokenizer_(tokenizer), options_(options) {
    end_ = options.end_token_id;
    if (!end_ && tokenizer != nullptr) end_ = tokenizer->eos_id();
  }

  std::string where(std::int64_t line) const { return concat_text(path_, ":", line); }

  DataKind detect(const Json& object, std::int64_t line) const {
    const auto has = [&](const std::string& key) { return object.contains(key); };
    if (has("input_ids")) return DataKind::tokens;
    if (has("messages") || has("conversations")) return DataKind::chat;
    if (has("instruction") && has("output")) return DataKind::instruct;
    if (has(options_.prompt_key) && has(options_.completion_key)) return DataKind::completion;
    if (has(options_.text_key)) return DataKind::text;
    std::string keys;
    for (const auto& [key, value] : object.items()) keys += (keys.empty() ? "" : ", ") + key;
    fail<ConfigError>(where(line), ": cannot tell the kind of data from the keys ", keys, ": expected ", options_.text_key, "; ", options_.prompt_key, " and ", options_.completion_key,
                      "; messages; instruction and output; or input_ids");
  }

  Example read(const Json& object, DataKind kind, std::int64_t line) const {
    Example example;
    example.line = line;
    check<FileError>(object.is_object(), where(line), ": expected an object, found ", object.type_name());
    if (kind != DataKind::tokens) check<ConfigError>(tokenizer_ != nullptr, where(line), ": this model has no tokenizer: give lines of input_ids");
    switch (kind) {
      case DataKind::text: add(example, text(object, options_.text_key, line), true); end(example); break;
      case DataKind::completion:
        add(example, text(object, options_.prompt_key, line) + options_.prompt_separator, options_.train_on_prompt);
        add(example, text(object, options_.completion_key, line), true);
        end(example);
        break;
      case DataKind::instruct: instruct(example, object, line); break;
      case DataKind::chat: chat(example, object, line); break;
      default: tokens(example, object, line);
    }
    return example;
  }

  void add(Example& example, const std::string& part, bool learned) const {
    const std::vector<std::int64_t> ids = tokenizer_->encode(part);
    example.ids.insert(example.ids.end(), ids.begin(), ids.end());
    if (learned) example.labels.insert(example.labels.end(), ids.begin(), ids.end());
    else example.labels.insert(example.labels.end(), ids.size(), kIgnore);
  }
  void end(Example& example) const {
    if (!end_) return;
    example.ids.push_back(*end_);
    example.labels.push_back(*end_);
  }

  /// Cuts to the limit, checks, and counts.
  void finish(Dataset& dataset, Example example) const {
    const auto limit = static_cast<std::size_t>(options_.max_length);
    if (example.ids.size() > limit) {
      ++dataset.cut_rows;
      dataset.cut_tokens += static_cast<std::int64_t>(example.ids.size() - limit);
      example.ids.resize(limit);
      example.labels.resize(limit);
    }
    if (!example.labels.empty()) example.labels.front() = kIgnore;  // nothing stands before the first token
    if (options_.vocabulary > 0)
      for (std::int64_t id : example.ids)
        check<FileError>(id >= 0 && id < options_.vocabulary, where(example.line), ": token id ", id, " is outside the vocabulary of ", options_.vocabulary);
    check<FileError>(example.targets() > 0, where(example.line), ": nothing to learn is left in this row of ", example.ids.size(), " tokens",
                     example.ids.size() == limit ? ": raise --max-length or remove the row" : ": it is empty or all of it is masked");
    dataset.tokens += static_cast<std::int64_t>(example.ids.size());
    dataset.targets += example.targets();
    dataset.examples.push_back(std::move(example));
  }

 private:
  std::string text(const Json& object, const std::string& key, std::int64_t line) const {
    const auto found = object.find(key);
    check<FileError>(found != object.end(), where(line), ": expected the key '", key, "'");
    check<FileError>(found->is_string(), where(line), ": '", key, "': expected a text, found ", found->type_name());
    return found->get<std::string>();
  }
  std::string optional_text(const Json& object, const std::string& key, std::int64_t line) const {
    return object.contains(key) && !object[key].is_null() ? text(object, key, line) : std::string();
  }

  // The prompt of Stanford Alpaca (Taori et al. 2023).
  void instruct(Example& example, const Json& object, std::int64_t line) const {
    const std::string input = optional_text(object, "input", line);
    std::string prompt = optional_text(object, "system", line);
    if (prompt.empty())
      prompt = input.empty() ? "Below is an instruction that describes a task. Write a response that appropriately completes the request."
                             : "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.";
    if (object.contains("history") && !object["history"].is_null()) {
      check<FileError>(object["history"].is_array(), where(line), ": 'history': expected a list of [instruction, answer]");
      for (const Json& turn : object["history"]) {
        check<FileError>(turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string(), where(line), ": 'history': expected a list of [instruction, answer]");
        prompt += "\n\n### Instruction:\n" + turn[0].get<std::string>() + "\n\n### Response:\n" + turn[1].get<std::string>();
      }
    }
    prompt += "\n\n### Instruction:\n" + text(object, "instruction", line) + (input.empty() ? "" : "\n\n### Input:\n" + input) + "\n\n### Response:\n";
    add(example, prompt, options_.train_on_prompt);
    add(example, text(object, "output", line), true);
    end(example);
  }

  std::vector<ChatMessage> messages(const Json& object, std::int64_t line) const {
    std::vector<ChatMessage> out;
    const bool sharegpt = object.contains("conversations");
    const Json& list = object[sharegpt ? "conversations" : "messages"];
    check<FileError>(list.is_array() && !list.empty(), where(line), ": expected a list of messages");
    for (const Json& item : list) {
      check<FileError>(item.is_object(), where(line), ": expected messages as objects");
      std::string role = text(item, sharegpt ? "from" : "role", line);
      if (role == "human") role = "user";
      else if (role == "gpt") role = "assistant";
      check<FileError>(role == "system" || role == "user" || role == "assistant" || role == "tool", where(line), ": role: expected system, user, assistant or tool, found '", role, "'");
      out.push_back({std::move(role), text(item, sharegpt ? "value" : "content", line)});
    }
    return out;
  }

  void chat(Example& example, const Json& object, std::int64_t line) const {
    check<ConfigError>(!tokenizer_->chat_template().empty(), where(line), ": this model has no chat template: use prompt and completion instead");
    const RenderedChat rendered = render_chat(*tokenizer_, messages(object, line));
    // Pieces are encoded apart at the borders of the assistant's turns, so that no token is half learned.
    std::size_t at = 0;
    for (const auto& [begin, stop] : rendered.assistant) {
      add(example, rendered.text.substr(at, begin - at), options_.train_on_prompt);
      add(example, rendered.text.substr(begin, stop - begin), true);
      at = stop;
    }
    add(example, rendered.text.substr(at), options_.train_on_prompt);
  }

  void tokens(Example& example, const Json& object, std::int64_t line) const {
    const auto list = [&](const char* key) {
      check<FileError>(object.contains(key) && object[key].is_array(), where(line), ": '", key, "': expected a list of integers");
      std::vector<std::int64_t> out;
      for (const Json& v : object[key]) {
        check<FileError>(v.is_number_integer(), where(line), ": '", key, "': expected integers, found ", v.dump());
        out.push_back(v.get<std::int64_t>());
      }
      return out;
    };
    example.ids = list("input_ids");
    example.labels = object.contains("labels") ? list("labels") : example.ids;
    check<FileError>(example.labels.size() == example.ids.size(), where(line), ": ", example.ids.size(), " input_ids but ", example.labels.size(), " labels");
    for (std::size_t i = 0; i < example.ids.size(); ++i)
      check<FileError>(example.labels[i] == kIgnore || example.labels[i] == example.ids[i] || (example.labels[i] >= 0 && (options_.vocabulary == 0 || example.labels[i] < options_.vocabulary)),
                       where(line), ": label ", example.labels[i], " is neither a token nor -100");
    if (object.contains("attention_mask")) {  // padding is dropped: batches are made anew
      const std::vector<std::int64_t> mask = list("attention_mask");
      check<FileError>(mask.size() == example.ids.size(), where(line), ": ", example.ids.size(), " input_ids but ", mask.size(), " entries of attention_mask");
      Example kept;
      kept.line = line;
      for (std::size_t i = 0; i < mask.size(); ++i)
        if (mask[i] != 0) {
          kept.ids.push_back(example.ids[i]);
          kept.labels.push_back(example.labels[i]);
        }
      example = std::move(kept);
    }
  }

  std::string path_;
  const Tokenizer* tokenizer_;
  const DataOptions& options_;
  std::optional<std::int64_t> end_;
};

}  // namespace

std::string_view name_of(DataKind kind) { return kKinds[static_cast<std::size_t>(kind)]; }

DataKind parse_data_kind(std::string_view text) {
  for (std::size_t i = 0; i < kKinds.size(); ++i)
    if (kKinds[i] == text) return static_cast<DataKind>(i);
  fail<ConfigError>("data kind: expected auto, text, completion, instruct, chat or tokens, found '", text, "'");
}

std::int64_t Example::targets() const { return static_cast<std::int64_t>(std::count_if(labels.begin(), labels.end(), [](std::int64_t l) { return l != kIgnore; })); }

Dataset load_dataset(const std::string& path, const Tokenizer* tokenizer, const DataOptions& options) {
  check<ConfigError>(options.max_length >= 2, "max_length: expected at least 2, found ", options.max_length);
  std::ifstream file(path, std::ios::binary);
  check<FileError>(file.good(), "data: cannot open ", path);
  Dataset dataset;
  dataset.path = path;
  dataset.kind = options.kind;
  const LineReader reader(path, tokenizer, options);
  std::string text;
  std::int64_t number = 0;
  if (path.ends_with(".txt")) {
    check<ConfigError>(options.kind == DataKind::automatic || options.kind == DataKind::text, path, ": a .txt file holds plain text, not ", name_of(options.kind));
    check<ConfigError>(tokenizer != nullptr, path, ": this model has no tokenizer: give lines of input_ids");
    dataset.kind = DataKind::text;
    std::string paragraph;
    std::int64_t first = 0;
    const auto flush = [&] {
      if (paragraph.empty()) return;
      Example example;
      example.line = first;
      reader.add(example, paragraph, true);
      reader.end(example);
      reader.finish(dataset, std::move(example));
      paragraph.clear();
    };
    while (std::getline(file, text)) {
      ++number;
      if (!text.empty() && text.back() == '\r') text.pop_back();
      if (text.find_first_not_of(" \t") == std::string::npos) {
        flush();
        continue;
      }
      if (paragraph.empty()) first = number;
      paragraph += (paragraph.empty() ? "" : "\n") + text;
    }
    flush();
  } else {
    while (std::getline(file, text)) {
      ++number;
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      const Json object = parse_json(text, reader.where(number));
      check<FileError>(object.is_object(), reader.where(number), ": expected an object, found ", object.type_name());
      if (dataset.kind == DataKind::automatic) dataset.kind = reader.detect(object, number);
      reader.finish(dataset, reader.read(object, dataset.kind, number));
    }
  }
  check<FileError>(!file.bad(), "data: cannot read ", path);
  check<FileError>(!dataset.examples.empty(), path, ": there is no row in it");
  return dataset;
}

Dataset split_off(Dataset& dataset, double fraction, std::uint64_t seed) {
  check<ConfigError>(fraction > 0.0 && fraction < 1.0, "eval fraction: expected a number between 0 and 1, found ", fraction);
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  const auto taken = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(count))));
  check<ConfigError>(taken < count, "eval fraction: ", fraction, " of ", count, " rows leaves none for training");
  const std::vector<std::int64_t> order = permutation(count, RandomKey{seed, 0}.fold("eval split"));
  std::vector<bool> in_eval(static_cast<std::size_t>(count), false);
  for (std::int64_t i = 0; i < taken; ++i) in_eval[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;
  Dataset rest = dataset, eval = dataset;
  for (Dataset* part : {&rest, &eval}) {
    part->examples.clear();
    part->tokens = part->targets = 0;
    for (std::size_t i = 0; i < in_eval.size(); ++i) {
      if (in_eval[i] != (part == &eval)) continue;
      part->tokens += static_cast<std::int64_t>(dataset.examples[i].ids.size());
      part->targets += dataset.examples[i].targets();
      part->examples.push_back(dataset.examples[i]);
    }
  }
  eval.cut_rows = eval.cut_tokens = 0;
  dataset = std::move(rest);
  return eval;
}

}  // namespace cambium
