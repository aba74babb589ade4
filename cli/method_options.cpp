// The table of fields, and their texts as the JSON of a configuration.
#include "cli/method_options.h"

#include <algorithm>

#include "cli/command.h"
#include "kernels/error.h"

namespace cambium::cli {

namespace {

constexpr unsigned kLora = 1, kIa3 = 2, kPrompt = 4, kPrefix = 8, kPTuning = 16, kFull = 32;
constexpr unsigned kLayers = kLora | kIa3, kVirtual = kPrompt | kPrefix | kPTuning;

constexpr Method kMethods[] = {
    {"lora", "LORA", 2e-4, kLora},
    {"ia3", "IA3", 3e-3, kIa3},
    {"prompt-tuning", "PROMPT_TUNING", 1e-2, kPrompt},
    {"prefix-tuning", "PREFIX_TUNING", 1e-2, kPrefix},
    {"p-tuning", "P_TUNING", 1e-3, kPTuning},
    {"full", "", 2e-5, kFull},
};

enum class Kind { integer, number, flag, boolean, text, list, integers, names, pattern, init, json };
struct Field {
  std::string_view name;
  unsigned methods;
  Kind kind;
  const char* help;
};
constexpr Field kFields[] = {
    {"r", kLora, Kind::integer, "rank [8]"},
    {"lora-alpha", kLora, Kind::number, "scaling is alpha / r [8]"},
    {"lora-dropout", kLora, Kind::number, "on the adapter's input [0]"},
    {"target-modules", kLayers, Kind::names, "comma-separated names, a regular expression, or all-linear; default: by architecture"},
    {"exclude-modules", kLayers, Kind::names, "names or a regular expression that win over --target-modules"},
    {"fan-in-fan-out", kLayers, Kind::flag, "weights are stored (in, out); corrected to what the layers are"},
    {"bias", kLora, Kind::text, "none, all or lora_only [none]"},
    {"use-rslora", kLora, Kind::flag, "scaling alpha / sqrt(r)"},
    {"use-dora", kLora, Kind::flag, "magnitude and direction apart"},
    {"lora-bias", kLora, Kind::flag, "a bias on B"},
    {"init-lora-weights", kLora, Kind::init, "true, false, gaussian, orthogonal, pissa, pissa_niter_N or olora [true]"},
    {"layers-to-transform", kLora, Kind::integers, "comma-separated numbers of layers"},
    {"layers-pattern", kLora, Kind::list, "names of the containers of the layers"},
    {"rank-pattern", kLora, Kind::pattern, "name=rank,…: ranks of some modules"},
    {"alpha-pattern", kLora, Kind::pattern, "name=alpha,…"},
    {"trainable-token-indices", kLora, Kind::integers, "comma-separated tokens whose embeddings are trained, or {\"module\": [tokens]}"},
    {"feedforward-modules", kIa3, Kind::names, "those of the targets whose input is scaled; default: by architecture"},
    {"init-ia3-weights", kIa3, Kind::boolean, "true: starts as ones [true]"},
    {"modules-to-save", kLayers | kVirtual, Kind::list, "comma-separated modules that are trained in full"},
    {"num-virtual-tokens", kVirtual, Kind::integer, "length of the prompt or prefix"},
    {"token-dim", kVirtual, Kind::integer, "default: the model's"},
    {"num-transformer-submodules", kVirtual, Kind::integer, "default: 2 for seq2seq, else 1"},
    {"num-attention-heads", kVirtual, Kind::integer, "default: the model's"},
    {"num-layers", kVirtual, Kind::integer, "default: the model's"},
    {"prompt-tuning-init", kPrompt, Kind::text, "RANDOM, TEXT or SAMPLE_VOCAB [RANDOM]"},
    {"prompt-tuning-init-text", kPrompt, Kind::text, "what a prompt of TEXT starts as"},
    {"tokenizer-name-or-path", kPrompt, Kind::text, "of that text; default: the model's"},
    {"tokenizer-kwargs", kPrompt, Kind::json, "a JSON object"},
    {"prefix-projection", kPrefix, Kind::flag, "the prefix comes out of a network of two layers"},
    {"init-weights", kPrefix, Kind::text, "zero: the prefix starts as zeros"},
    {"encoder-reparameterization-type", kPTuning, Kind::text, "MLP or LSTM [MLP]"},
    {"encoder-hidden-size", kPrefix | kPTuning, Kind::integer, "default: the model's"},
    {"encoder-num-layers", kPTuning, Kind::integer, "of an LSTM [2]"},
    {"encoder-dropout", kPTuning, Kind::number, "between the layers of an LSTM [0]"},
    {"revision", kLayers | kVirtual, Kind::text, "of the base model, noted in the adapter's configuration"},
};

std::string key_of(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string methods_of(unsigned bits) {
  std::string names;
  for (const Method& method : kMethods)
    if ((bits & method.bit) != 0) names.append(names.empty() ? "" : ", ").append(method.name);
  return names;
}

Json number_of(const std::string& text, std::string_view option, bool whole) {
  try {
    const Json value = parse_json(text, std::string(option));
    if (whole ? value.is_number_integer() : value.is_number()) return value;
  } catch (const Error&) {  // told below with the option's name
  }
  fail<ConfigError>("--", option, ": expected a ", whole ? "whole number" : "number", ", found '", text, "'");
}

Json object_of(const std::string& text, std::string_view option) {
  const Json value = parse_json(text, "--" + std::string(option));
  check<ConfigError>(value.is_object(), "--", option, ": expected a JSON object, found '", text, "'");
  return value;
}

Json value_of(const Field& field, const std::string& text) {
  switch (field.kind) {
    case Kind::integer: return number_of(text, field.name, true);
    case Kind::number: return number_of(text, field.name, false);
    case Kind::text: return text;
    case Kind::json: return object_of(text, field.name);
    case Kind::init: return text == "true" ? Json(true) : text == "false" ? Json(false) : Json(text);
    case Kind::boolean:
      check<ConfigError>(text == "true" || text == "false", "--", field.name, ": expected true or false, found '", text, "'");
      return text == "true";
    case Kind::names:
      // A name has letters, digits, underscores and dots between them; anything else is meant as a pattern.
      if (text == "all-linear" || text.find_first_of("*+?[](){}|^$\\") != std::string::npos) return text;
      return split_commas(text);
    case Kind::list: return split_commas(text);
    case Kind::integers: {
      if (text.starts_with("{")) return object_of(text, field.name);
      Json list = Json::array();
      for (const std::string& part : split_commas(text)) list.push_back(number_of(part, field.name, true));
      return list;
    }
    case Kind::pattern: {
      if (text.starts_with("{")) return object_of(text, field.name);
      Json object = Json::object();
      for (const std::string& part : split_commas(text)) {
        const std::size_t equals = part.rfind('=');
        check<ConfigError>(equals != std::string::npos, "--", field.name, ": expected name=number, found '", part, "'");
        object[part.substr(0, equals)] = number_of(part.substr(equals + 1), field.name, false);
      }
      return object;
    }
    default: return true;
  }
}

}  // namespace

const Method& find_method(std::string_view name) {
  for (const Method& method : kMethods)
    if (method.name == name) return method;
  fail<ConfigError>("--method: expected one of ", methods_of(~0U), ", found '", name, "'");
}

const Method& find_method_by_type(std::string_view peft_type) {
  for (const Method& method : kMethods)
    if (!peft_type.empty() && method.peft_type == peft_type) return method;
  fail<ConfigError>("the adapter's method ", peft_type, " is none of ", methods_of(~kFull));
}

void add_method_options(CLI::App& command, const std::shared_ptr<Json>& fields) {
  for (const Field& field : kFields) {
    const std::string flag = "--" + std::string(field.name), key = key_of(field.name), group = "Fields of " + methods_of(field.methods);
    if (field.kind == Kind::flag) command.add_flag_callback(flag, [fields, key] { (*fields)[key] = true; }, field.help)->group(group);
    else command.add_option_function<std::string>(flag, [fields, key, &field](const std::string& text) { (*fields)[key] = value_of(field, text); }, field.help)->group(group);
  }
}

void check_fields(const Json& fields, const Method& method) {
  for (const Field& field : kFields)
    check<ConfigError>(!fields.contains(key_of(field.name)) || (field.methods & method.bit) != 0, "--", field.name, ": no option of --method ", method.name, ": it belongs to ", methods_of(field.methods));
}

}  // namespace cambium::cli
