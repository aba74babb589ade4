// Chat templates against Jinja, what assistants say in them, and templates that are refused or stopped.
#include <doctest/doctest.h>

#include "nn/text/chat_template.h"
#include "tensor/json.h"
#include "tests/data_paths.h"

using namespace cambium;
namespace {

const Json& data() {
  static const Json json = read_json_file(test::source_file("tests/data/chat_templates/cases.json"));
  return json;
}

std::string template_named(const std::string& name) { return data()["templates"][name].get<std::string>(); }

std::string render(const std::string& text, const std::vector<ChatMessage>& messages = {}, bool prompt = false) {
  return apply_chat_template(text, messages, {.add_generation_prompt = prompt, .bos_token = "<s>", .eos_token = "</s>"});
}

std::string message_of(const std::string& text) {
  try {
    return "rendered: " + render(text, {{"user", "hi"}}).substr(0, 100);
  } catch (const Error& error) {
    return error.what();
  }
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("templates give what Jinja gives") {
  for (const Json& row : data()["cases"]) {
    std::vector<ChatMessage> messages;
    for (const Json& message : row["messages"]) messages.push_back({message["role"], message["content"]});
    CAPTURE(row.dump());
    const std::string text = template_named(row["template"]);
    if (row.contains("error")) {
      CHECK_THROWS_WITH_AS(render(text, messages, row["prompt"]), ("chat template: " + row["error"].get<std::string>()).c_str(), ConfigError);
    } else {
      CHECK(render(text, messages, row["prompt"]) == row["text"].get<std::string>());
    }
  }
  CHECK(data()["cases"].size() == 160);
}

TEST_CASE("what the assistant says, with the end of its turn") {
  const std::vector<ChatMessage> messages{{"user", "one"}, {"assistant", "two"}, {"user", "two"}, {"assistant", "four"}};
  const auto said = [&](const std::string& name) {
    const RenderedChat chat = render_chat(template_named(name), messages, {.bos_token = "<s>", .eos_token = "</s>"});
    CHECK(chat.text == render(template_named(name), messages));
    std::string all;
    for (const auto& range : chat.assistant) all += chat.text.substr(range.first, range.second - range.first) + "|";
    return all;
  };
  CHECK(said("smollm2") == "two<|im_end|>\n|four<|im_end|>\n|");
  CHECK(said("llama3") == "two<|eot_id|>|four<|eot_id|>|");
  CHECK(said("llama31") == "two<|eot_id|>|four<|eot_id|>|");
  CHECK(said("mistral1") == "two</s>|four</s>|");
  CHECK(said("mistral3") == " two</s>| four</s>|");
  CHECK(said("qwen25") == "two<|im_end|>\n|four<|im_end|>\n|");
  CHECK(said("qwen3") == "two<|im_end|>\n|<think>\n\n</think>\n\nfour<|im_end|>\n|");
  CHECK(said("gemma") == "two<end_of_turn>\n|four<end_of_turn>\n|");
  CHECK(said("generation") == "two</a>|four</a>|");
  CHECK_THROWS_WITH_AS(render_chat("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}", messages),
                       "chat template: turn 2: its text depends on later turns or differs from its prompt, so what the assistant says cannot be told apart", ConfigError);
}

TEST_CASE("constructs outside of the subset are named") {
  for (const auto& bad : std::vector<std::pair<const char*, const char*>>{
           {"{% macro f() %}{% endmacro %}", "{% macro %} is not supported"},
           {"{% include 'x' %}", "{% include %} is not supported"},
           {"{% import 'os' as os %}", "{% import %} is not supported"},
           {"{{ messages.__class__.__mro__ }}", "a member of something undefined"},
           {"{{ ''.__class__.mro() }}", "the method 'mro'"},
           {"{{ 'a'.format(1) }}", "the method 'format' is not supported"},
           {"{{ strftime_now('%Y') }}", "the function 'strftime_now' is not supported"},
           {"{{ lipsum() }}", "the function 'lipsum' is not supported"},
           {"{{ 1|pprint }}", "the filter 'pprint' of number is not supported"},
           {"{{ 1 is divisibleby(3) }}", "is not supported"},
           {"{{ 'a' + 1 }}", "'+' of string and number"},
           {"{{ x.y }}", "something undefined"},
           {"{{ 1 / 0 }}", "division by zero"},
           {"{{ '\\x41' }}", "the escape \\x is not supported"},
           {"{{ 'a }}", "without its closing"},
           {"{{ 1 ", "without its closing"},
           {"{% if true %}", "without its {% endif %}"},
           {"{% endif %}", "is not supported"},
           {"{% break %}", "outside of a loop"},
           {"{{ (1 }}", "expected ')'"},
           {"{{ }}", "an expression is missing"},
           {"{{ 1 $ 2 }}", "unexpected character '$'"},
       }) {
    CAPTURE(bad.first);
    CHECK_MESSAGE(contains(message_of(bad.first), bad.second), message_of(bad.first));
  }
}

TEST_CASE("templates that would run on are stopped") {
  CHECK(contains(message_of("{% for a in range(2000) %}{% for b in range(2000) %}{{ a }}{% endfor %}{% endfor %}"), "more than 1000000 steps"));
  CHECK(contains(message_of("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"), "16 MiB"));
  CHECK(contains(message_of("{% set ns = namespace(x=['ab']) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"), "more than 1000000 steps"));
  CHECK(contains(message_of("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"), "nested too deeply"));
  CHECK(contains(message_of("{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = {'a': ns} %}{% endfor %}"), "nested too deeply"));
  const auto repeated = [](const std::string& unit, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += unit;
    return text;
  };
  CHECK(contains(message_of("{{ " + repeated("(", 5000) + "1 }}"), "more than 1000 words"));
  CHECK(contains(message_of("{{ " + repeated("(", 900) + "1 }}"), "nested too deeply"));
  CHECK(contains(message_of("{{ " + repeated("-", 900) + "1 }}"), "nested too deeply"));
  CHECK(contains(message_of("{{ " + repeated("not ", 900) + "1 }}"), "nested too deeply"));
  CHECK(message_of("{{ 1" + repeated("+ 1", 480) + " }}") == "rendered: 481");
  CHECK(contains(message_of(repeated("{% if true %}", 5000)), "nested too deeply"));
  CHECK(contains(message_of("{{ messages" + repeated(".x", 490) + " }}"), "undefined"));
}

TEST_CASE("damaged templates render or fail, never more") {
  std::uint32_t state = 11;
  const auto random = [&] { return state = state * 1664525U + 1013904223U, state >> 8; };
  for (const auto& entry : data()["templates"].items()) {
    const auto good = entry.value().get<std::string>();
    for (int round = 0; round < 100; ++round) {
      std::string bad = good;
      for (std::uint32_t hit = random() % 3 + 1; hit > 0 && !bad.empty(); --hit) {
        const std::size_t at = random() % bad.size();
        switch (random() % 3) {
          case 0: bad[at] = "{}%#'\"()[]|.-+~=\n \xC3"[random() % 20]; break;
          case 1: bad.erase(at, random() % 12); break;
          default: bad.insert(at, bad.substr(random() % bad.size(), random() % 30));
        }
      }
      (void)message_of(bad);
    }
  }
}

}  // namespace
