// Open addressing with linear probing over an arena.
#include "nn/text/vocabulary.h"

#include <functional>

#include "kernels/error.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>{}(token) & mask;
  while (slots_[slot] != 0 && text(entries_[slots_[slot] - 1]) != token) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::rehash(std::size_t slots) {
  slots_.assign(slots, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i) slots_[slot_of(text(entries_[i]))] = static_cast<std::uint32_t>(i + 1);
}

TokenId Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return kNoToken;
  const std::uint32_t entry = slots_[slot_of(token)];
  return entry == 0 ? kNoToken : entries_[entry - 1].id;
}

bool Vocabulary::contains(std::int64_t id) const {
  return id >= 0 && id < id_end() && entry_of_id_[static_cast<std::size_t>(id)] != kNoToken;
}

void Vocabulary::add(std::string_view token, std::int64_t id, std::string_view where) {
  // Gaps are fine, but an id may not make the table of ids much larger than the file it stands in.
  const auto limit = static_cast<std::int64_t>(131072 + 2 * entries_.size());
  if (id < 0 || id >= limit) {
    fail<ConfigError>(where, ": token ", quote_for_message(token), ": expected an id of at least 0 and without a large gap below, found ", id);
  }
  check<ConfigError>(bytes_.size() + token.size() < 0x7FFFFFFF, where, ": expected at most 2 GiB of tokens");
  if (4 * (entries_.size() + 1) > 3 * slots_.size()) rehash(slots_.empty() ? 64 : 2 * slots_.size());
  const std::size_t slot = slot_of(token);
  if (slots_[slot] != 0) fail<ConfigError>(where, ": token ", quote_for_message(token), " stands there twice: expected each token once");
  const auto index = static_cast<std::size_t>(id);
  if (index >= entry_of_id_.size()) entry_of_id_.resize(index + 1, kNoToken);
  if (entry_of_id_[index] != kNoToken) {
    fail<ConfigError>(where, ": id ", id, " stands for two tokens, ", quote_for_message(this->token(static_cast<TokenId>(id))), " and ",
                      quote_for_message(token), ": expected ids that differ");
  }
  entry_of_id_[index] = static_cast<std::uint32_t>(entries_.size());
  entries_.push_back({static_cast<std::uint32_t>(bytes_.size()), static_cast<std::uint32_t>(token.size()), static_cast<TokenId>(id)});
  bytes_ += token;
  slots_[slot] = static_cast<std::uint32_t>(entries_.size());
}

}  // namespace cambium::detail
