// Byte-level BPE from the lists of a GGUF file, whose rules of cutting are known by name only.
#include <array>
#include <utility>

#include "kernels/error.h"
#include "nn/text/bpe.h"
#include "nn/text/factory.h"
#include "nn/text/tokenizer_state.h"

namespace cambium::detail {

namespace {

// Names and patterns as llama.cpp gives them to converted models.
constexpr std::string_view kLlama3Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Rules {
  PreTokenizer pre_tokenizer;
  Normalizer normalizer;
  bool ignore_merges = false;
  bool add_bos = false;  ///< where the file does not say
};

PreTokenizer isolate(std::string_view pattern, std::string_view where) { return split_pre_tokenizer(Regex(pattern, where), SplitBehavior::isolated); }

Rules gpt2() { return {.pre_tokenizer = byte_level_pre_tokenizer(false, true)}; }

// Single digits first, then GPT-2's pattern on what is between: "   12" has one piece of three spaces.
Rules digits_then_gpt2() { return {.pre_tokenizer = pre_tokenizer_sequence({digits_pre_tokenizer(true), byte_level_pre_tokenizer(false, true)})}; }

Rules llama3() {
  return {.pre_tokenizer = pre_tokenizer_sequence({isolate(kLlama3Pattern, "llama3"), byte_level_pre_tokenizer(false, false)}),
          .ignore_merges = true, .add_bos = true};
}

// The models were trained on NFC text, which the name stands for too.
Rules qwen2() {
  return {.pre_tokenizer = pre_tokenizer_sequence({isolate(kQwen2Pattern, "qwen2"), byte_level_pre_tokenizer(false, false)}),
          .normalizer = unicode_normalizer("NFC")};
}

Rules unnamed() {
  return {.pre_tokenizer = pre_tokenizer_sequence(
              {isolate(R"([\p{P}\$\+<=>\^~\|]+)", "default"),
               isolate(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", "default"), isolate(R"(\p{N}+)", "default"),
               isolate("[0-9][0-9][0-9]", "default"), byte_level_pre_tokenizer(false, false)})};
}

using MakeRules = Rules (*)();
constexpr std::array<std::pair<std::string_view, MakeRules>, 9> kRules{{
    {"default", unnamed}, {"gpt-2", gpt2}, {"phi-2", gpt2}, {"smollm", digits_then_gpt2}, {"starcoder", digits_then_gpt2},
    {"llama-bpe", llama3}, {"llama3", llama3}, {"llama-v3", llama3}, {"qwen2", qwen2}}};

enum TokenType : std::int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

}  // namespace

TokenizerState state_from_lists(const TokenizerLists& lists, const std::string& where) {
  const auto count = static_cast<std::int64_t>(lists.tokens.size());
  check<ConfigError>(count > 0, where, ": expected tokens, found none");
  check<ConfigError>(lists.token_types.empty() || lists.token_types.size() == lists.tokens.size(), where, ": expected as many token types as tokens, ",
                     count, ", found ", lists.token_types.size());
  Rules rules = find_type(kRules, lists.pre_tokenizer, where + ": pre-tokenizer")();

  TokenizerState state;
  Vocabulary vocabulary;
  for (std::int64_t id = 0; id < count; ++id) {
    const auto index = static_cast<std::size_t>(id);
    const std::string& text = lists.tokens[index];
    const std::int32_t type = lists.token_types.empty() ? kNormal : lists.token_types[index];
    if (type < kNormal || type > kByte) fail<ConfigError>(where, ": token ", id, ": expected a type in 1 … 6, found ", type);
    vocabulary.add(text, id, where);
    if (type == kUnknown || type == kControl || type == kUserDefined) {
      state.added.add({.id = id, .content = text, .special = type != kUserDefined}, {}, where);
    }
  }
  auto model = std::make_unique<BpeModel>(std::move(vocabulary), BpeOptions{.ignore_merges = rules.ignore_merges}, where);
  for (const std::string& line : lists.merges) {
    const auto [left, right] = parse_merge(line, where);
    model->add_merge(left, right, where);
  }
  state.model = std::move(model);
  state.normalizer = std::move(rules.normalizer);
  state.pre_tokenizer = std::move(rules.pre_tokenizer);
  state.decoder = byte_level_decoder();

  const auto checked = [&](const char* name, std::optional<std::int64_t> id) {
    if (id && (*id < 0 || *id >= count)) fail<ConfigError>(where, ": ", name, ": expected an id below ", count, ", found ", *id);
    return id;
  };
  state.bos_id = checked("bos id", lists.bos_id);
  state.eos_id = checked("eos id", lists.eos_id);
  state.pad_id = checked("padding id", lists.pad_id);
  if (state.eos_id) state.stop_ids.push_back(*state.eos_id);
  for (const std::int64_t id : lists.stop_ids) {
    if (checked("stop id", id) != state.eos_id) state.stop_ids.push_back(id);
  }
  const bool add_bos = lists.add_bos.value_or(rules.add_bos && lists.bos_id), add_eos = lists.add_eos.value_or(false);
  check<ConfigError>(!add_bos || state.bos_id, where, ": asks for BOS before each text, but names no bos id");
  check<ConfigError>(!add_eos || state.eos_id, where, ": asks for EOS after each text, but names no eos id");
  state.post_processor = begin_end_post_processor(add_bos ? state.bos_id : std::nullopt, add_eos ? state.eos_id : std::nullopt);
  state.chat_template = lists.chat_template;
  finish_state(state, where);
  return state;
}

}  // namespace cambium::detail
