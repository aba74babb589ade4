// Chat templates: a bounded subset of Jinja, enough for the templates that models bring; nothing in them can reach outside the messages.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cambium {

class Tokenizer;

struct ChatMessage {
  std::string role, content;
};

struct ChatTemplateOptions {
  bool add_generation_prompt = false;
  std::string bos_token, eos_token;
};

/// The conversation as the template writes it. ConfigError naming a construct outside the subset, the template's own raise_exception, a million steps, or 16 MiB of output.
std::string apply_chat_template(std::string_view template_text, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& options = {});

/// A conversation with the ranges (begin, end in bytes) that the assistant says, each with the marks that end its turn: what training learns.
struct RenderedChat {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> assistant;
};
/// By {% generation %} marks if the template has them, else by rendering the conversation's beginnings. ConfigError if a turn cannot be told apart.
RenderedChat render_chat(std::string_view template_text, const std::vector<ChatMessage>& messages, const ChatTemplateOptions& options = {});
RenderedChat render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages);

/// The prompt for the assistant's next turn.
std::string chat_prompt(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages);

}  // namespace cambium
