// `cambium tokenize`: ids of texts and of pairs, or texts of ids.
#include <fstream>
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct TokenizeArguments {
  SharedOptions shared;
  std::string text, pair, jsonl, key = "text", pair_key;
  bool special = false, decode = false, have_text = false, have_pair = false;
};

// A pair has type ids beside its ids.
Json encoded(const Tokenizer& tokenizer, const std::string& a, const std::string& b, bool special) {
  const Encoding encoding = tokenizer.encode_pair(a, b, {.add_special_tokens = special});
  return Json{{"ids", encoding.ids}, {"type_ids", encoding.type_ids}};
}

std::vector<std::int64_t> ids_of(const Json& value, const std::string& where) {
  check<FileError>(value.is_array(), where, ": expected a list of token ids");
  std::vector<std::int64_t> ids;
  for (const Json& id : value) {
    check<FileError>(id.is_number_integer(), where, ": expected integers, found ", id.dump());
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

int run(const TokenizeArguments& a) {
  check<ConfigError>(a.have_text != !a.jsonl.empty(), "tokenize: give --text or --jsonl");
  check<ConfigError>(!a.have_pair || (a.have_text && !a.decode), "tokenize: --pair: expected beside --text and without --decode");
  check<ConfigError>(a.pair_key.empty() || (!a.have_text && !a.decode), "tokenize: --pair-key: expected beside --jsonl and without --decode");
  const Tokenizer tokenizer = Tokenizer::from_file(a.shared.model);
  if (a.have_text) {
    if (a.decode) {
      const std::string text = tokenizer.decode(ids_of(parse_json(a.text, "--text"), "--text"));
      std::cout << Json(text).dump() << '\n';
      answer(a.shared, Json{{"text", text}});
    } else if (a.have_pair) {
      const Json both = encoded(tokenizer, a.text, a.pair, a.special);
      std::cout << both.dump() << '\n';
      answer(a.shared, both);
    } else {
      const std::vector<std::int64_t> ids = tokenizer.encode(a.text, a.special);
      std::cout << Json(ids).dump() << '\n';
      answer(a.shared, Json{{"ids", ids}});
    }
    return 0;
  }
  std::ifstream file(a.jsonl, std::ios::binary);
  check<FileError>(file.good(), "tokenize: cannot open ", a.jsonl);
  std::int64_t number = 0, rows = 0;
  for (std::string line; std::getline(file, line);) {
    const std::string where = concat_text(a.jsonl, ":", ++number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json value = parse_json(line, where);
    ++rows;
    const bool keyed = value.is_object();
    check<FileError>(!keyed || value.contains(a.key), where, ": expected the key '", a.key, "'");
    const Json& item = keyed ? value[a.key] : value;
    if (a.decode) {
      std::cout << Json(tokenizer.decode(ids_of(item, where))).dump() << '\n';
    } else {
      check<FileError>(item.is_string(), where, ": '", a.key, "': expected a text, found ", item.type_name());
      if (!a.pair_key.empty()) {
        check<FileError>(keyed && value.contains(a.pair_key) && value[a.pair_key].is_string(), where, ": expected a text under the key '", a.pair_key, "'");
        std::cout << encoded(tokenizer, item.get<std::string>(), value[a.pair_key].get<std::string>(), a.special).dump() << '\n';
        continue;
      }
      std::cout << Json(tokenizer.encode(item.get<std::string>(), a.special)).dump() << '\n';
    }
  }
  check<FileError>(!file.bad(), "tokenize: cannot read ", a.jsonl);
  std::cout.flush();
  answer(a.shared, Json{{"rows", rows}});
  return 0;
}
}  // namespace

Run add_tokenize(CLI::App& program) {
  auto a = std::make_shared<TokenizeArguments>();
  CLI::App& c = *program.add_subcommand("tokenize", "token ids of a text, or the text of ids");
  add_shared(c, a->shared, {.model = false, .adapter = false});
  c.add_option("--model", a->shared.model, "folder or .gguf with a tokenizer, a tokenizer.json, a SentencePiece .model or a vocab.txt")->required();
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option_function<std::string>("--text", [a](const std::string& text) {
    a->text = text;
    a->have_text = true;
  }, "one text (with --decode: a list of ids)");
  c.add_option_function<std::string>("--pair", [a](const std::string& text) {
    a->pair = text;
    a->have_pair = true;
  }, "a second text beside --text; prints ids and type ids");
  c.add_option("--jsonl", a->jsonl, "many: one JSON text or object a line")->type_name("FILE");
  c.add_option("--key", a->key, "of the text in objects")->capture_default_str();
  c.add_option("--pair-key", a->pair_key, "of the second text in objects; prints ids and type ids");
  c.add_flag("--special", a->special, "add the tokenizer's own tokens around texts and between two");
  c.add_flag("--decode", a->decode, "read lists of ids, print JSON texts");
  c.footer("Example:\n  cambium tokenize --model SmolLM2-135M-Instruct.Q4_1.gguf --text \"Define: LOVE\"");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
