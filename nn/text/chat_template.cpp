// Chat templates of models applied to conversations, for prompting and for training.
#include "nn/text/chat_template.h"

#include <algorithm>

#include "kernels/error.h"
#include "nn/text/template_interpreter.h"
#include "nn/text/template_syntax.h"
#include "nn/text/tokenizer.h"
#include "nn/text/unicode.h"

namespace cambium {

namespace {

using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;

ChatTemplateOptions special_tokens(const Tokenizer& tokenizer, bool add_generation_prompt) {
  ChatTemplateOptions options;
  options.add_generation_prompt = add_generation_prompt;
  if (tokenizer.bos_id()) options.bos_token = tokenizer.id_to_token(*tokenizer.bos_id());
  if (tokenizer.eos_id()) options.eos_token = tokenizer.id_to_token(*tokenizer.eos_id());
  return options;
}

const std::string& need_template(const Tokenizer& tokenizer) {
  check<ConfigError>(!tokenizer.chat_template().empty(), "chat: this model has no chat template");
  return tokenizer.chat_template();
}

std::string run(const std::vector<detail::Statement>& program, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& options, Ranges* marked = nullptr) {
  detail::TemplateInterpreter interpreter;
  Json list = Json::array();
  for (const ChatMessage& message : messages) list.push_back(Json{{"role", message.role}, {"content", message.content}});
  interpreter.set("messages", std::move(list));
  interpreter.set("tools", nullptr);
  interpreter.set("documents", nullptr);
  interpreter.set("add_generation_prompt", options.add_generation_prompt);
  interpreter.set("bos_token", options.bos_token);
  interpreter.set("eos_token", options.eos_token);
  interpreter.run(program);
  if (marked) *marked = interpreter.marked();
  return interpreter.text();
}

}  // namespace

std::string apply_chat_template(std::string_view template_text, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& options) {
  return run(detail::parse_template(template_text), messages, options);
}

RenderedChat render_chat(std::string_view template_text, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& given) {
  const std::vector<detail::Statement> program = detail::parse_template(template_text);
  ChatTemplateOptions whole = given, prompt = given;
  whole.add_generation_prompt = false;
  prompt.add_generation_prompt = true;
  RenderedChat out;
  out.text = run(program, messages, whole, &out.assistant);
  if (!out.assistant.empty()) return out;  // the template says itself what the assistant generates
  const auto first = [&](std::size_t count) { return std::vector<ChatMessage>(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count)); };
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    // A turn begins where the prompt for it ends, and ends where the conversation up to it ends.
    const std::string before = run(program, first(i), prompt), with = run(program, first(i + 1), whole);
    std::size_t end = with.size();
    bool found = out.text.starts_with(before) && with.size() >= before.size();
    if (found && !(out.text.starts_with(with) && with.starts_with(before))) {
      // A last turn may be written differently (with its thoughts, say). Its content and what follows it are the same.
      const std::string content(detail::trim_white_space(messages[i].content));
      const std::size_t in_turn = with.rfind(content), in_text = out.text.find(content, before.size());
      const std::string rest = in_turn == std::string::npos ? std::string() : with.substr(in_turn);
      found = !content.empty() && !rest.empty() && in_text != std::string::npos && out.text.compare(in_text, rest.size(), rest) == 0;
      end = in_text + rest.size();
    }
    check<ConfigError>(found, "chat template: turn ", i + 1, ": its text depends on later turns or differs from its prompt, so what the assistant says cannot be told apart");
    out.assistant.emplace_back(before.size(), end);
  }
  return out;
}

RenderedChat render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  return render_chat(need_template(tokenizer), messages, special_tokens(tokenizer, false));
}

std::string chat_prompt(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  return apply_chat_template(need_template(tokenizer), messages, special_tokens(tokenizer, true));
}

}  // namespace cambium
