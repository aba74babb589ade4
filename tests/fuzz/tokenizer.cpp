// Fuzz target: tokenizer.json, SentencePiece .model and vocab.txt. What is accepted gives ids below its size for odd text, and decodes them.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "nn/text/sentencepiece.h"
#include "nn/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cambium;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kText = "the caf\xC3\xA9 e\xCC\x81 \xEF\xBC\xA1\xEF\xAC\x81 <s> 12\xE3\x8E\x8F\xE4\xB8\xAD \xF0\x9F\x98\x80\xFF  x";
  const auto use = [&](auto&& encode, const auto& decode, std::int64_t vocab_size) {
    const auto ids = encode(kText);
    for (const std::int64_t id : ids) {
      if (id < 0 || id >= vocab_size) std::abort();
    }
    (void)decode(ids);
  };
  try {
    if (size > 0 && data[0] == '{') {
      const Tokenizer tokenizer = Tokenizer::from_json(bytes, "fuzz");
      use([&](std::string_view text) { return tokenizer.encode_text(text).ids; }, [&](const auto& ids) { return tokenizer.decode(ids); }, tokenizer.vocab_size());
      use([&](std::string_view text) { return tokenizer.encode(text, true); }, [&](const auto& ids) { return tokenizer.decode(ids, true); }, tokenizer.vocab_size());
    } else {
      detail::TokenizerState state = detail::state_from_sentencepiece(detail::read_sentencepiece_file(bytes, "fuzz"), true, "fuzz");
      detail::finish_state(state, "fuzz");
      use([&](std::string_view text) { return state.encode(text, true).ids; }, [&](const auto& ids) { return state.decode(ids, false); }, state.vocab_size);
    }
  } catch (const Error&) {
  }
  return 0;
}
