// Two-way table between token texts and ids, compact: one arena of bytes, one table of hashes. Internal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cambium::detail {

using TokenId = std::uint32_t;
inline constexpr TokenId kNoToken = 0xFFFFFFFF;

class Vocabulary {
 public:
  /// `where` starts the messages. ConfigError: the text or the id is there already, or the id is not in 0 … 2^31-2.
  void add(std::string_view token, std::int64_t id, std::string_view where);
  /// Makes room for as many bytes of texts.
  void reserve_bytes(std::size_t bytes) { bytes_.reserve(bytes); }

  std::size_t size() const { return entries_.size(); }
  /// Largest id + 1.
  std::int64_t id_end() const { return static_cast<std::int64_t>(entry_of_id_.size()); }
  /// kNoToken if there is none.
  TokenId find(std::string_view token) const;
  bool contains(std::int64_t id) const;
  /// The text of an id that is contained.
  std::string_view token(TokenId id) const { return text(entries_[entry_of_id_[id]]); }

 private:
  struct Entry {
    std::uint32_t begin, size;
    TokenId id;
  };
  std::string_view text(const Entry& entry) const { return std::string_view(bytes_).substr(entry.begin, entry.size); }
  std::size_t slot_of(std::string_view token) const;
  void rehash(std::size_t slots);

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;        // index of an entry + 1; 0 is free
  std::vector<std::uint32_t> entry_of_id_;  // kNoToken: an id without a token
};

}  // namespace cambium::detail
